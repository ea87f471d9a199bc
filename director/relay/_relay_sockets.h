/* For the reactor's thread, which holds the interpreter's lock. */
#ifndef TXDIRECTOR_RELAY_SOCKETS_H
#define TXDIRECTOR_RELAY_SOCKETS_H

PyObject *sockets_accept(PyObject *module, PyObject *listening);
PyObject *sockets_connect(PyObject *module, PyObject *arguments);
PyObject *sockets_connect_from(PyObject *module, PyObject *arguments);

#endif
