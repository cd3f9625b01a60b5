/* A disk that refuses on request, by LD_PRELOAD.
 *
 * While the file $FAULTYDISK exists, writing and syncing fails with the errno that it holds as decimal text, for files
 * whose path begins with $FAULTYDISK_UNDER. Reading goes on, as on a disk that was remounted read-only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int refused(int fd)
{
    const char *control = getenv("FAULTYDISK"), *under = getenv("FAULTYDISK_UNDER");
    char link[64], path[4096], number[16] = "";
    if (!control || !under)
        return 0;
    int file = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t size = read(file, number, sizeof number - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (size <= 0 || length <= 0)
        return 0;
    path[length] = 0;
    if (strncmp(path, under, strlen(under)))
        return 0;
    errno = atoi(number);
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return refused(fd) ? -1 : REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    return refused(fd) ? -1 : REAL(pwrite64)(fd, data, size, at);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return refused(fd) ? -1 : REAL(write)(fd, data, size);
}

int ftruncate(int fd, off_t size)
{
    return refused(fd) ? -1 : REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return refused(fd) ? -1 : REAL(ftruncate64)(fd, size);
}

int fsync(int fd)
{
    return refused(fd) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return refused(fd) ? -1 : REAL(fdatasync)(fd);
}
