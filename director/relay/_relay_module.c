/* The native relay as Python sees it: one type, made by `start`. All of this runs on the reactor's thread.
 *
 * Drained events are tuples (which, arguments): 0 connected (token,), 1 connect_failed (token, client, errno),
 * 2 closed (token, reason, to_host, to_client).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "_relay.h"
#include "_relay_sockets.h"
#include "_relay_sys.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

/* `enum reason` in the words of cluster.model.Reason. */
static const char *const REASONS[] = {
    [CLIENT_CLOSED] = "client_closed", [HOST_CLOSED] = "host_closed",
    [CLIENT_RESET] = "client_reset",   [HOST_RESET] = "host_reset",
    [CLIENT_LOST] = "client_lost",     [HOST_LOST] = "host_lost",
    [IDLE_TIMEOUT] = "idle_timeout",   [HALF_CLOSED_TIMEOUT] = "half_closed_timeout",
    [MAX_AGE] = "max_age",             [SHUTDOWN] = "shutdown",
    [RELAY_ERROR] = "relay_error",
};
enum { OWN_REASONS = sizeof REASONS / sizeof *REASONS };

typedef struct {
    PyObject_HEAD
    PyObject *reasons; /* a tuple, by number */
    int signal;        /* eventfd: events wait */
    bool running;
    unsigned worker_count;
    struct worker *workers[MAX_WORKERS];
} Engine;

static bool is_running(Engine *self)
{
    if (!self->running)
        PyErr_SetString(PyExc_RuntimeError, "the engine is not running");
    return self->running;
}

/* The open connection behind a handle; NULL: it is over, or an exception is set. */
static struct conn *find(Engine *self, PyObject *handle, struct worker **worker)
{
    uint64_t id = PyLong_AsUnsignedLongLong(handle);
    if (PyErr_Occurred() || WORKER_OF(id) >= self->worker_count)
        return NULL;
    *worker = self->workers[WORKER_OF(id)];
    if (SLOT_OF(id) >= (*worker)->slot_count)
        return NULL;
    struct conn *c = slot_at(*worker, SLOT_OF(id));
    return c->id == id && c->token != NULL ? c : NULL;
}

/* Seconds, rounded up to ticks; whatever is longer than a year is a year. False: an exception is set. */
static bool ticks_of(PyObject *limits, Py_ssize_t index, uint32_t *ticks)
{
    PyObject *item = PyTuple_GetItem(limits, index);
    double seconds = item == NULL ? 0 : PyFloat_AsDouble(item);
    if (PyErr_Occurred())
        return false;
    double wanted = seconds * 1000 / TICK_MS, most = 365.0 * 86400 * 1000 / TICK_MS;
    *ticks = wanted <= 0 ? 0 : wanted > most ? (uint32_t)most : (uint32_t)wanted;
    if (*ticks < wanted && wanted <= most)
        ++*ticks;
    return true;
}

static struct worker *least_loaded(Engine *self)
{
    struct worker *least = self->workers[0];
    for (unsigned i = 1; i < self->worker_count; i++)
        if (self->workers[i]->open < least->open)
            least = self->workers[i];
    return least;
}

PyDoc_STRVAR(relay_doc, "relay(token, client, host, limits, preface) -> handle\n\n"
                        "MemoryError: no room for one more; the descriptors stay the caller's.");

static PyObject *engine_relay(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Engine *self = (Engine *)object;
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "expected 5 arguments, got %zd", count);
    if (!is_running(self))
        return NULL;
    long client = PyLong_AsLong(arguments[1]), host = PyLong_AsLong(arguments[2]);
    char *preface;
    Py_ssize_t preface_size;
    uint32_t ticks[4];
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(arguments[4], &preface, &preface_size) < 0)
        return NULL;
    for (int i = 0; i < 4; i++)
        if (!ticks_of(arguments[3], i, &ticks[i]))
            return NULL;

    struct worker *w = least_loaded(self);
    struct chunk *hold = NULL;
    if (preface_size > 0 && (hold = chunk_of(preface, preface_size)) == NULL)
        return PyErr_NoMemory();
    struct conn *c = slot_take(w);
    PyObject *handle = c == NULL ? PyErr_NoMemory() : PyLong_FromUnsignedLongLong(c->id);
    if (handle == NULL) {
        free(hold);
        if (c != NULL)
            slot_give(w, c);
        return NULL;
    }
    c->end[CLIENT].fd = client;
    c->end[HOST].fd = host;
    c->end[CLIENT].hold = hold;
    c->end[CLIENT].moved = -preface_size;
    c->connect_ticks = ticks[0];
    c->idle_ticks = ticks[1];
    c->half_closed_ticks = ticks[2];
    c->max_age_ticks = ticks[3];
    c->started_ms = c->active_ms = monotonic_ms();
    c->token = Py_NewRef(arguments[0]);
    w->open++;
    w->connecting++;
    worker_submit(w, c);
    return handle;
}

PyDoc_STRVAR(kill_doc, "kill(handle, reason): a number of those given to `start`. Over already: nothing happens.");

static PyObject *engine_kill(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Engine *self = (Engine *)object;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "expected 2 arguments, got %zd", count);
    if (!is_running(self))
        return NULL;
    struct worker *w;
    struct conn *c = find(self, arguments[0], &w);
    long reason = PyLong_AsLong(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    if (reason < 0 || reason >= PyTuple_Size(self->reasons)) {
        PyErr_SetString(PyExc_ValueError, "no such reason");
        return NULL;
    }
    if (c != NULL)
        worker_kill(w, c, reason);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(progress_doc, "progress(handle) -> (to_host, to_client, idle_s), or None when it is over");

static PyObject *engine_progress(PyObject *object, PyObject *handle)
{
    Engine *self = (Engine *)object;
    struct worker *w;
    struct conn *c = self->running ? find(self, handle, &w) : NULL;
    if (PyErr_Occurred())
        return NULL;
    if (c == NULL)
        Py_RETURN_NONE;
    long long to_host = PEEK(c->end[CLIENT].moved), to_client = PEEK(c->end[HOST].moved);
    double idle_s = (monotonic_ms() - PEEK(c->active_ms)) / 1000.0;
    return Py_BuildValue("LLd", to_host > 0 ? to_host : 0, to_client, idle_s > 0 ? idle_s : 0.0);
}

PyDoc_STRVAR(tokens_doc, "tokens() -> those of all connections whose end was not drained yet");

static PyObject *engine_tokens(PyObject *object, PyObject *Py_UNUSED(none))
{
    Engine *self = (Engine *)object;
    PyObject *tokens = PyList_New(0);
    for (unsigned i = 0; tokens != NULL && i < self->worker_count; i++)
        for (uint32_t slot = 0; slot < self->workers[i]->slot_count; slot++) {
            struct conn *c = slot_at(self->workers[i], slot);
            if (c->token != NULL && PyList_Append(tokens, c->token) < 0) {
                Py_DECREF(tokens);
                return NULL;
            }
        }
    return tokens;
}

PyDoc_STRVAR(counters_doc, "counters() -> (open, connecting, to_host_bytes, to_client_bytes, spliced_bytes, stalled, pipes)");

static PyObject *engine_counters(PyObject *object, PyObject *Py_UNUSED(none))
{
    Engine *self = (Engine *)object;
    long long open = 0, connecting = 0, to_host = 0, to_client = 0, spliced = 0, stalled = 0, pipes = 0;
    for (unsigned i = 0; i < self->worker_count; i++) {
        struct worker *w = self->workers[i];
        open += w->open;
        connecting += w->connecting;
        to_host += PEEK(w->moved[CLIENT]);
        to_client += PEEK(w->moved[HOST]);
        spliced += PEEK(w->spliced);
        stalled += PEEK(w->stalled);
        pipes += PEEK(w->pipe_count);
    }
    return Py_BuildValue("LLLLLLL", open, connecting, to_host, to_client, spliced, stalled, pipes);
}

/* --- events -------------------------------------------------------------------------------------------------------- */

static PyObject *connected_event(struct conn *c) { return Py_BuildValue("i(O)", 0, c->token); }

static PyObject *final_event(Engine *self, struct conn *c)
{
    if (c->error != 0)
        return Py_BuildValue("i(Oii)", 1, c->token, c->end[CLIENT].fd, c->error);
    long long to_host = c->end[CLIENT].moved > 0 ? c->end[CLIENT].moved : 0;
    return Py_BuildValue("i(OOLL)", 2, c->token, PyTuple_GetItem(self->reasons, c->reason), to_host,
                         (long long)c->end[HOST].moved);
}

/* Append *event*, a new reference or NULL. */
static bool append(PyObject *events, PyObject *event)
{
    bool well = event != NULL && PyList_Append(events, event) == 0;
    Py_XDECREF(event);
    return well;
}

/* Append what is in the outbox of *w* until *events* has *limit*. False: an exception is set; nothing is lost. */
static bool drain_worker(Engine *self, struct worker *w, PyObject *events, Py_ssize_t limit)
{
    while (PyList_Size(events) < limit) {
        if (w->told_drained.head == NONE && w->over_drained.head == NONE) {
            pthread_mutex_lock(&w->lock);
            w->told_drained = w->told;
            w->over_drained = w->over;
            w->told.head = w->over.head = NONE;
            pthread_mutex_unlock(&w->lock);
            if (w->told_drained.head == NONE && w->over_drained.head == NONE)
                break;
        }
        if (w->told_drained.head != NONE) { /* all of them first: a final event never comes before */
            struct conn *c = slot_at(w, w->told_drained.head);
            if (!append(events, connected_event(c)))
                return false;
            w->told_drained.head = c->told_next;
            w->connecting--;
            continue;
        }
        struct conn *c = slot_at(w, w->over_drained.head);
        if (!append(events, final_event(self, c)))
            return false;
        w->over_drained.head = c->timer.next;
        w->connecting -= !c->connected;
        w->open--;
        Py_DECREF((PyObject *)c->token);
        c->token = NULL;
        slot_give(w, c);
    }
    return true;
}

static PyObject *drain(Engine *self, Py_ssize_t limit)
{
    uint64_t counter;
    PyObject *events = PyList_New(0);
    if (events == NULL || (read(self->signal, &counter, sizeof counter) < 0 && errno != EAGAIN))
        return events;
    bool well = true;
    for (unsigned i = 0; well && i < self->worker_count; i++)
        well = drain_worker(self, self->workers[i], events, limit);
    if (!well || PyList_Size(events) >= limit) { /* there may be more */
        counter = 1;
        if (write(self->signal, &counter, sizeof counter) < 0 && well)
            PyErr_SetFromErrno(PyExc_OSError);
    }
    if (well || PyList_Size(events) > 0) {
        PyErr_Clear();
        return events;
    }
    Py_DECREF(events);
    return NULL;
}

PyDoc_STRVAR(drain_doc, "drain(limit) -> at most so many events, oldest first; the descriptor stays readable for the rest");

static PyObject *engine_drain(PyObject *object, PyObject *limit)
{
    Py_ssize_t most = PyLong_AsSsize_t(limit);
    if (PyErr_Occurred() || !is_running((Engine *)object))
        return NULL;
    return drain((Engine *)object, most);
}

/* --- start and stop ------------------------------------------------------------------------------------------------ */

static void stop_workers(Engine *self)
{
    self->running = false;
    Py_BEGIN_ALLOW_THREADS
    for (unsigned i = 0; i < self->worker_count; i++)
        worker_stop(self->workers[i]);
    Py_END_ALLOW_THREADS
}

static void release(Engine *self)
{
    for (unsigned i = 0; i < self->worker_count; i++) {
        worker_close(self->workers[i]);
        free(self->workers[i]);
    }
    self->worker_count = 0;
    if (self->signal >= 0)
        close(self->signal);
    self->signal = -1;
}

PyDoc_STRVAR(stop_doc, "stop() -> the last events: every connection was ended, the threads are gone");

static PyObject *engine_stop(PyObject *object, PyObject *Py_UNUSED(none))
{
    Engine *self = (Engine *)object;
    if (!is_running(self))
        return NULL;
    stop_workers(self);
    PyObject *events = drain(self, PY_SSIZE_T_MAX);
    release(self);
    return events;
}

PyDoc_STRVAR(fileno_doc, "fileno() -> a descriptor that is readable while events wait; -1 once stopped");

static PyObject *engine_fileno(PyObject *object, PyObject *Py_UNUSED(none))
{
    return PyLong_FromLong(((Engine *)object)->signal);
}

static void engine_dealloc(PyObject *object)
{
    Engine *self = (Engine *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->running) {
        stop_workers(self);
        Py_XDECREF(drain(self, PY_SSIZE_T_MAX));
    }
    release(self);
    Py_XDECREF(self->reasons);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef engine_methods[] = {
    {"relay", (PyCFunction)(void (*)(void))engine_relay, METH_FASTCALL, relay_doc},
    {"kill", (PyCFunction)(void (*)(void))engine_kill, METH_FASTCALL, kill_doc},
    {"progress", engine_progress, METH_O, progress_doc},
    {"tokens", engine_tokens, METH_NOARGS, tokens_doc},
    {"counters", engine_counters, METH_NOARGS, counters_doc},
    {"drain", engine_drain, METH_O, drain_doc},
    {"stop", engine_stop, METH_NOARGS, stop_doc},
    {"fileno", engine_fileno, METH_NOARGS, fileno_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, "Worker threads that relay; made by `start`."},
    {Py_tp_methods, engine_methods},
    {Py_tp_dealloc, engine_dealloc},
    {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = "director.relay._relay.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = engine_slots,
};

PyDoc_STRVAR(start_doc, "start(threads, reasons, pipes=512) -> Engine\n\n"
                        "reasons: what `closed` says, by number; the first are those that REASONS names.\n"
                        "pipes: of all threads together, at most.\n"
                        "OSError: no descriptors or no threads to be had.");

static PyObject *module_start(PyObject *module, PyObject *arguments)
{
    int threads, pipes = MAX_PIPES;
    PyObject *reasons;
    if (!PyArg_ParseTuple(arguments, "iO!|i", &threads, &PyTuple_Type, &reasons, &pipes))
        return NULL;
    if (pipes < 0 || pipes > MAX_PIPES)
        return PyErr_Format(PyExc_ValueError, "0 to %d pipes", MAX_PIPES);
    if (threads < 1 || threads > MAX_WORKERS || PyTuple_Size(reasons) < OWN_REASONS ||
        PyTuple_Size(reasons) > NO_REASON)
        return PyErr_Format(PyExc_ValueError, "1 to %d threads and at least %d reasons", MAX_WORKERS, OWN_REASONS);
    PyObject *type = PyObject_GetAttrString(module, "Engine");
    Engine *self = type == NULL ? NULL : (Engine *)PyType_GenericAlloc((PyTypeObject *)type, 0);
    Py_XDECREF(type);
    if (self == NULL)
        return NULL;
    self->reasons = Py_NewRef(reasons);
    self->signal = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = self->signal < 0 ? errno : 0;
    for (int i = 0; error == 0 && i < threads; i++) {
        struct worker *w = calloc(1, sizeof *w);
        error = w == NULL ? ENOMEM : worker_start(w, i, threads, pipes, self->signal);
        if (error == 0)
            self->workers[self->worker_count++] = w;
        else
            free(w);
    }
    self->running = true; /* whatever has started is stopped with it */
    if (error != 0) {
        Py_DECREF((PyObject *)self);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return (PyObject *)self;
}

#ifdef RELAY_FAULTS
static PyObject *module_fault(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    int site, error, skip, count;
    if (!PyArg_ParseTuple(arguments, "iiii", &site, &error, &skip, &count))
        return NULL;
    fault_order(site, error, skip, count);
    Py_RETURN_NONE;
}

static PyObject *module_hold(PyObject *Py_UNUSED(module), PyObject *hold)
{
    int order = PyObject_IsTrue(hold);
    if (order < 0)
        return NULL;
    gate_hold(order);
    Py_RETURN_NONE;
}

static PyObject *module_look(PyObject *Py_UNUSED(module), PyObject *rounds)
{
    long wanted = PyLong_AsLong(rounds);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    gate_look(wanted);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
#endif

static PyMethodDef module_methods[] = {
    {"start", module_start, METH_VARARGS, start_doc},
    {"accept", sockets_accept, METH_O, "accept(fd): see director.sockets"},
    {"connect", sockets_connect, METH_VARARGS,
     "connect(sockaddr, options): a descriptor, or an errno below 0; options: of TCP, each an int and its value"},
    {"connect_from", sockets_connect_from, METH_VARARGS,
     "connect_from(source, sockaddr, options): as connect, from an address of ours"},
#ifdef RELAY_FAULTS
    {"fault", module_fault, METH_VARARGS, "fault(site, errno, skip, count): have calls there fail, after some that do not"},
    {"hold", module_hold, METH_O, "hold(whether): keep the engine's one thread from looking at events but by `look`"},
    {"look", module_look, METH_O, "look(rounds): have it go around so many times"},
#endif
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &engine_spec, NULL);
    int error = PyModule_AddObjectRef(module, "Engine", type);
    Py_XDECREF(type);
    PyObject *names = PyTuple_New(OWN_REASONS);
    for (int i = 0; names != NULL && i < OWN_REASONS; i++)
        PyTuple_SetItem(names, i, PyUnicode_FromString(REASONS[i]));
    error = error < 0 ? error : PyModule_AddObjectRef(module, "REASONS", names);
    Py_XDECREF(names);
    return error < 0 ? error : PyModule_AddIntConstant(module, "MAX_THREADS", MAX_WORKERS);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_relay",
    .m_doc = "The native relay's engine; director.relay.native is how to use it.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__relay(void) { return PyModuleDef_Init(&module_definition); }
