/* A disk that is full while the file that FULL_DISK names exists: loaded before the C library, this refuses what would make a regular
   file longer. While the file that READ_ONLY_DISK names exists, it refuses to write to any, and to open one for that. Standard output and
   error, where logs go, have a disk of their own. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_set(const char *variable)
{
    const char *flag = getenv(variable);
    return flag && access(flag, F_OK) == 0;
}

static int refused(int file, off_t end)
{
    int before = errno, why = 0;
    struct stat about;
    if (file > STDERR_FILENO && fstat(file, &about) == 0 && S_ISREG(about.st_mode)) {
        if (is_set("READ_ONLY_DISK"))
            why = EROFS;
        else if (end > about.st_size && is_set("FULL_DISK"))
            why = ENOSPC;
    }
    errno = why ? why : before;
    return why != 0;
}

/* Devices are on no disk. */
static int may_open(const char *path, int flags)
{
    struct stat about;
    int before = errno, writes = (flags & O_ACCMODE) != O_RDONLY;
    int refused = writes && (stat(path, &about) != 0 || S_ISREG(about.st_mode)) && is_set("READ_ONLY_DISK");
    errno = refused ? EROFS : before;
    return !refused;
}

static mode_t mode_of(int flags, va_list more)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

/* Where a write without a place of its own begins; of what has no places, nowhere. */
static off_t place(int file)
{
    struct stat about;
    int before = errno, flags = fcntl(file, F_GETFL);
    off_t at = flags >= 0 && flags & O_APPEND && fstat(file, &about) == 0 ? about.st_size : lseek(file, 0, SEEK_CUR);
    errno = before;
    return at;
}

static off_t length(const struct iovec *parts, int count)
{
    off_t sum = 0;
    for (int at = 0; at < count; at++)
        sum += parts[at].iov_len;
    return sum;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return may_open(path, flags) ? NEXT(open)(path, flags, mode) : -1;
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return may_open(path, flags) ? NEXT(open64)(path, flags, mode) : -1;
}

ssize_t write(int file, const void *data, size_t count)
{
    return refused(file, place(file) + (off_t)count) ? -1 : NEXT(write)(file, data, count);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    return refused(file, place(file) + length(parts, count)) ? -1 : NEXT(writev)(file, parts, count);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t at)
{
    return refused(file, at + (off_t)count) ? -1 : NEXT(pwrite)(file, data, count, at);
}

ssize_t pwrite64(int file, const void *data, size_t count, off64_t at)
{
    return refused(file, at + (off_t)count) ? -1 : NEXT(pwrite64)(file, data, count, at);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at)
{
    return refused(file, at + length(parts, count)) ? -1 : NEXT(pwritev)(file, parts, count, at);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at)
{
    return refused(file, at + length(parts, count)) ? -1 : NEXT(pwritev64)(file, parts, count, at);
}

int posix_fallocate(int file, off_t at, off_t count)
{
    return refused(file, at + count) ? errno : NEXT(posix_fallocate)(file, at, count);
}

int posix_fallocate64(int file, off64_t at, off64_t count)
{
    return refused(file, at + count) ? errno : NEXT(posix_fallocate64)(file, at, count);
}
