/* Accepting and connecting on bare descriptors: what `director.sockets` says, in C. */
#define Py_LIMITED_API 0x030b0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_relay_sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
    PyObject *answer;
    if (peer.ss_family == AF_INET)
        answer = Py_BuildValue("iy#i", client, &v4->sin_addr, (Py_ssize_t)4, (int)ntohs(v4->sin_port));
    else if (peer.ss_family == AF_INET6)
        answer = Py_BuildValue("iy#i", client, &v6->sin6_addr, (Py_ssize_t)16, (int)ntohs(v6->sin6_port));
    else
        answer = Py_BuildValue("iOi", client, Py_None, 0);
    if (answer == NULL)
        close(client);
    return answer;
}

PyObject *sockets_connect(PyObject *module, PyObject *sockaddr)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(sockaddr, &bytes, &size) < 0)
        return NULL;
    int family = ((const struct sockaddr *)bytes)->sa_family, one = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return PyLong_FromLong(-errno);
    if (family != AF_UNIX) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    if (connect(fd, (const struct sockaddr *)bytes, size) < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        return PyLong_FromLong(-error);
    }
    return PyLong_FromLong(fd);
}
