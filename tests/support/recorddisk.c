/* Writes down all that a program does to files under $RECORDDISK_UNDER, in order, by LD_PRELOAD.
 *
 * Each record in the file $RECORDDISK: kind (1 byte: w write, t truncate, s sync, u unlink, r rename), inode, offset or
 * new size, length of the path, length of the data (8 bytes each, of the machine's order), path, data. The data of a
 * rename is the new path. The index of SQLite's journal (-shm) is left out: it is memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t order = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static int concerned(const char *path)
{
    const char *under = getenv("RECORDDISK_UNDER");
    size_t length = strlen(path);
    return under && !strncmp(path, under, strlen(under)) && !(length > 4 && !strcmp(path + length - 4, "-shm"));
}

static int path_of(int fd, char *path, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return concerned(path);
}

static void record(char kind, uint64_t inode, uint64_t at, const char *path, const void *data, uint64_t size)
{
    static int log = -1;
    uint64_t head[4] = {inode, at, strlen(path), size};
    if (log < 0)
        log = (int)syscall(SYS_openat, AT_FDCWD, getenv("RECORDDISK"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct iovec parts[] = {{&kind, 1}, {head, sizeof head}, {(void *)path, head[2]}, {(void *)data, size}};
    if (syscall(SYS_writev, log, parts, 4) < 0)
        abort();
}

static uint64_t inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) ? 0 : status.st_ino;
}

#define RECORDED(kind, at, data, call, succeeded, length)                                                              \
    char path[4096];                                                                                                   \
    pthread_mutex_lock(&order);                                                                                        \
    __typeof__(call) result = call;                                                                                    \
    if ((succeeded) && path_of(fd, path, sizeof path))                                                                 \
        record(kind, inode_of(fd), (uint64_t)(at), path, data, (uint64_t)(length));                                    \
    pthread_mutex_unlock(&order);                                                                                      \
    return result;

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    RECORDED('w', at, data, REAL(pwrite)(fd, data, size, at), result > 0, result)
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    RECORDED('w', at, data, REAL(pwrite64)(fd, data, size, at), result > 0, result)
}

int ftruncate(int fd, off_t size)
{
    RECORDED('t', size, "", REAL(ftruncate)(fd, size), result == 0, 0)
}

int ftruncate64(int fd, off64_t size)
{
    RECORDED('t', size, "", REAL(ftruncate64)(fd, size), result == 0, 0)
}

int fsync(int fd)
{
    RECORDED('s', 0, "", REAL(fsync)(fd), result == 0, 0)
}

int fdatasync(int fd)
{
    RECORDED('s', 0, "", REAL(fdatasync)(fd), result == 0, 0)
}

int unlink(const char *name)
{
    pthread_mutex_lock(&order);
    int result = REAL(unlink)(name);
    if (!result && concerned(name))
        record('u', 0, 0, name, "", 0);
    pthread_mutex_unlock(&order);
    return result;
}

int rename(const char *name, const char *other)
{
    pthread_mutex_lock(&order);
    int result = REAL(rename)(name, other);
    if (!result && concerned(name))
        record('r', 0, 0, name, other, strlen(other));
    pthread_mutex_unlock(&order);
    return result;
}
