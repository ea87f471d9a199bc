/* Accepting and connecting on bare descriptors: what `director.ports.sockets` says, in C. */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_relay_sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

PyObject *sockets_accept(PyObject *module, PyObject *listening)
{
    (void)module;
    long fd = PyLong_AsLong(listening);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int client;
    do
        client = accept4(fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (client < 0 && errno == EINTR);
    if (client < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&peer;
    char name[16 + 2]; /* address and port, as on the wire */
    Py_ssize_t length = 0;
    if (peer.ss_family == AF_INET) {
        memcpy(name, &v4->sin_addr, 4);
        memcpy(name + 4, &v4->sin_port, 2);
        length = 6;
    } else if (peer.ss_family == AF_INET6) {
        memcpy(name, &v6->sin6_addr, 16);
        memcpy(name + 16, &v6->sin6_port, 2);
        length = 18;
    }
    PyObject *answer = length > 0 ? Py_BuildValue("iy#", client, name, length) : Py_BuildValue("iO", client, Py_None);
    if (answer == NULL)
        close(client);
    return answer;
}

struct option {
    int name, value;
};

/* Begin a connect to a sockaddr, from another one unless that is NULL. *options*: of TCP, bytes of `struct option`. */
static PyObject *begin(const char *bytes, Py_ssize_t size, const char *source, Py_ssize_t source_size, const char *options,
                       Py_ssize_t options_size)
{
    int family = ((const struct sockaddr *)bytes)->sa_family, one = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return PyLong_FromLong(-errno);
    if (family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        for (struct option option; options_size >= (Py_ssize_t)sizeof option; options_size -= sizeof option) {
            memcpy(&option, options, sizeof option);
            setsockopt(fd, IPPROTO_TCP, option.name, &option.value, sizeof option.value);
            options += sizeof option;
        }
    }
    /* the port is chosen by connect, which knows the other end: so each host may be given every port */
    if ((source != NULL && (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) < 0 ||
                            bind(fd, (const struct sockaddr *)source, source_size) < 0)) ||
        (connect(fd, (const struct sockaddr *)bytes, size) < 0 && errno != EINPROGRESS)) {
        int error = errno;
        close(fd);
        return PyLong_FromLong(-error);
    }
    return PyLong_FromLong(fd);
}

PyObject *sockets_connect(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *bytes, *options;
    Py_ssize_t size, options_size;
    if (!PyArg_ParseTuple(arguments, "y#y#", &bytes, &size, &options, &options_size))
        return NULL;
    return begin(bytes, size, NULL, 0, options, options_size);
}

PyObject *sockets_connect_from(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *bytes, *source, *options;
    Py_ssize_t size, source_size, options_size;
    if (!PyArg_ParseTuple(arguments, "y#y#y#", &source, &source_size, &bytes, &size, &options, &options_size))
        return NULL;
    return begin(bytes, size, source, source_size, options, options_size);
}
