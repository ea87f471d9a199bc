/* The engine: the one type of the native relay, made by `start`. All of this runs on the reactor's thread.
 *
 * Drained events are tuples (which, arguments): 0 connected (token,), 1 connect_failed (token, client, errno),
 * 2 closed (token, reason, to_host, to_client).
 */
#include "_relay_engine.h"

#include "_relay_sys.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>

typedef struct {
    PyObject_HEAD
    PyObject *reasons; /* a tuple, by number */
    int signal;        /* eventfd: events wait */
    bool running;
    unsigned worker_count;
    struct worker *workers[MAX_WORKERS];
    struct tallies tallies;
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

PyDoc_STRVAR(relay_doc, "relay(token, client, host, limits, preface, tally) -> handle\n\n"
                        "tally: of `tally`; 0, or one that is free: nothing is counted.\n"
                        "MemoryError: no room for one more; the descriptors stay the caller's.");

static PyObject *engine_relay(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Engine *self = (Engine *)object;
    if (count != 6)
        return PyErr_Format(PyExc_TypeError, "expected 6 arguments, got %zd", count);
    if (!is_running(self))
        return NULL;
    long client = PyLong_AsLong(arguments[1]), host = PyLong_AsLong(arguments[2]), tally = PyLong_AsLong(arguments[5]);
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
    c->active_us = monotonic_us();
    c->started_ms = c->active_us / 1000;
    if (tally_enter(&self->tallies, tally))
        c->tally = tally;
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
    double idle_s = (monotonic_us() - PEEK(c->active_us)) / 1e6;
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

PyDoc_STRVAR(owes_doc, "owes() -> milliseconds that the slowest thread has owed a round, and asks each for its next one");

static PyObject *engine_owes(PyObject *object, PyObject *Py_UNUSED(none))
{
    Engine *self = (Engine *)object;
    int64_t most = 0;
    for (unsigned i = 0; i < self->worker_count; i++) {
        int64_t owes = worker_owes_ms(self->workers[i]);
        most = owes > most ? owes : most;
    }
    return PyLong_FromLongLong(most);
}

PyDoc_STRVAR(tally_doc, "tally() -> a number for `relay` to count a host's turnarounds under\n\n"
                        "MemoryError: no room for one more.");

static PyObject *engine_tally(PyObject *object, PyObject *Py_UNUSED(none))
{
    Engine *self = (Engine *)object;
    if (!is_running(self))
        return NULL;
    uint32_t number = tally_take(&self->tallies, self->workers, self->worker_count);
    return number == 0 ? PyErr_NoMemory() : PyLong_FromUnsignedLong(number);
}

PyDoc_STRVAR(free_tally_doc, "free_tally(number): it comes again once its last connection is over. Free already: nothing happens.");

static PyObject *engine_free_tally(PyObject *object, PyObject *argument)
{
    Engine *self = (Engine *)object;
    unsigned long number = PyLong_AsUnsignedLong(argument);
    if (PyErr_Occurred() || !is_running(self))
        return NULL;
    tally_give(&self->tallies, self->workers, self->worker_count, number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(turnarounds_doc, "turnarounds(number) -> (count, microseconds, unasked), totals; zeros for one that is free");

static PyObject *engine_turnarounds(PyObject *object, PyObject *argument)
{
    Engine *self = (Engine *)object;
    unsigned long number = PyLong_AsUnsignedLong(argument);
    if (PyErr_Occurred())
        return NULL;
    struct tally sum = tally_read(&self->tallies, self->workers, self->worker_count, number);
    return Py_BuildValue("LLL", (long long)sum.count, (long long)sum.micros, (long long)sum.unasked);
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
        tally_leave(&self->tallies, self->workers, self->worker_count, c->tally);
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
    tallies_close(&self->tallies);
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

PyObject *engine_start(PyTypeObject *type, unsigned threads, PyObject *reasons, unsigned pipes)
{
    Engine *self = (Engine *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->reasons = Py_NewRef(reasons);
    self->signal = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = self->signal < 0 ? errno : 0;
    for (unsigned i = 0; error == 0 && i < threads; i++) {
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

static PyMethodDef engine_methods[] = {
    {"relay", (PyCFunction)(void (*)(void))engine_relay, METH_FASTCALL, relay_doc},
    {"kill", (PyCFunction)(void (*)(void))engine_kill, METH_FASTCALL, kill_doc},
    {"progress", engine_progress, METH_O, progress_doc},
    {"tokens", engine_tokens, METH_NOARGS, tokens_doc},
    {"counters", engine_counters, METH_NOARGS, counters_doc},
    {"owes", engine_owes, METH_NOARGS, owes_doc},
    {"tally", engine_tally, METH_NOARGS, tally_doc},
    {"free_tally", engine_free_tally, METH_O, free_tally_doc},
    {"turnarounds", engine_turnarounds, METH_O, turnarounds_doc},
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

PyType_Spec engine_spec = {
    .name = "director.relay._relay.Engine",
    .basicsize = sizeof(Engine),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = engine_slots,
};
