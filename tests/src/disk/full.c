/* A disk that is full while the file that FULL_DISK names exists: loaded before the C library, this refuses what would make a regular
   file longer. Standard output and error, where logs go, have a disk of their own. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int refused(int file, off_t end)
{
    int before = errno;
    const char *flag = getenv("FULL_DISK");
    struct stat about;
    int full = file > STDERR_FILENO && flag && access(flag, F_OK) == 0 && fstat(file, &about) == 0 && S_ISREG(about.st_mode)
        && end > about.st_size;
    errno = full ? ENOSPC : before;
    return full;
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
    return refused(file, at + count) ? ENOSPC : NEXT(posix_fallocate)(file, at, count);
}

int posix_fallocate64(int file, off64_t at, off64_t count)
{
    return refused(file, at + count) ? ENOSPC : NEXT(posix_fallocate64)(file, at, count);
}
