/* The native relay as Python sees it: the module. All of this runs on the reactor's thread. */
#include "_relay_engine.h"
#include "_relay_sockets.h"
#include "_relay_sys.h"

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
    PyObject *engine = type == NULL ? NULL : engine_start((PyTypeObject *)type, threads, reasons, pipes);
    Py_XDECREF(type);
    return engine;
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
    {"accept", sockets_accept, METH_O, "accept(fd): see director.ports.sockets"},
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
