/* For the module, which makes engines. */
#ifndef TXDIRECTOR_RELAY_ENGINE_H
#define TXDIRECTOR_RELAY_ENGINE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "_relay.h"

extern PyType_Spec engine_spec;

/* A running engine. *reasons*: a tuple, by number; *pipes*: of all threads together. NULL: OSError or MemoryError is set. */
PyObject *engine_start(PyTypeObject *type, unsigned threads, PyObject *reasons, unsigned pipes);

#endif
