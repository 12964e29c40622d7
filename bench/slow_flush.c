/* Preloaded into a process: every flush takes at least a millisecond. Declares what it needs of libc by itself, so that a
   compiler without headers will do. */

#define LEAST_NS 1000000L
#define SECOND_NS 1000000000L
#define MONOTONIC 1
#define UNTIL 1

struct time { long s, ns; };

extern void *dlsym(void *, const char *);
extern int clock_gettime(int, struct time *);
extern int clock_nanosleep(int, int, const struct time *, struct time *);

#define SLOWLY(name)                                                                                                  \
    int name(int fd) {                                                                                                \
        struct time due;                                                                                              \
        clock_gettime(MONOTONIC, &due);                                                                               \
        int done = ((int (*)(int))dlsym((void *)-1L, #name))(fd);                                                     \
        due.ns += LEAST_NS;                                                                                           \
        if (due.ns >= SECOND_NS) due.s++, due.ns -= SECOND_NS;                                                        \
        while (clock_nanosleep(MONOTONIC, UNTIL, &due, 0));                                                           \
        return done;                                                                                                  \
    }

SLOWLY(fsync)
SLOWLY(fdatasync)
