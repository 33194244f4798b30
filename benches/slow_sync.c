/* Plays a slow disk: loaded before a program, it makes every fsync and fdatasync of it take at least
 * SLOW_SYNC_MS milliseconds. The sync itself is done, and done first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void rest_since(const struct timespec *start)
{
    const char *text = getenv("SLOW_SYNC_MS");
    long long ns = text ? atoll(text) * 1000000LL : 0;
    struct timespec until = *start;

    ns += until.tv_nsec;
    until.tv_sec += ns / 1000000000LL;
    until.tv_nsec = ns % 1000000000LL;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
        ; /* interrupted by a signal */
}

static int slowly(const char *name, int fd)
{
    int (*sync)(int);
    struct timespec start;
    int result;

    /* POSIX's own way around C's ban on turning an object pointer into a function pointer. */
    *(void **)(&sync) = dlsym(RTLD_NEXT, name);
    clock_gettime(CLOCK_MONOTONIC, &start);
    result = sync(fd);
    rest_since(&start);
    return result;
}

int fsync(int fd)
{
    return slowly("fsync", fd);
}

int fdatasync(int fd)
{
    return slowly("fdatasync", fd);
}
