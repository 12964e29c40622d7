/* Preloaded into a process: the disk below one folder refuses operation number `at`, and all later ones when it lasts.
   `how`: an errno, or 0 for a read that brings half of what was asked for. Declares what it needs of libc by itself, so
   that a compiler without headers will do. */

typedef long ssize;
typedef unsigned long size;
typedef long long offset;

extern void *dlsym(void *, const char *);
extern ssize readlink(const char *, char *, size);
extern int snprintf(char *, size, const char *, ...);
extern int strncmp(const char *, const char *, size);
extern size strlen(const char *);
extern int *__errno_location(void);

#define NEXT(name) dlsym((void *)-1L, name)
#define ENOSPC 28
#define O_CREAT 0100

static char folder[4096];
static long at = -1, seen = 0;
static int how = 0, lasts = 0, hits = 0;

void refusing_arm(const char *where, long number, int error, int lasting) {
    snprintf(folder, sizeof folder, "%s/", where);
    seen = 0, at = number, how = error, lasts = lasting, hits = 0;
}

/* Ends it; how often something was refused. */
int refusing_disarm(void) { at = -1, folder[0] = 0; return hits; }

static int below(const char *path) {
    return folder[0] && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int below_fd(int fd) {
    char link[64], path[4096];
    int kept = *__errno_location();
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize got = readlink(link, path, sizeof path - 1);
    *__errno_location() = kept;
    if (got < 0) return 0;
    path[got] = 0;
    return below(path) || (strlen(path) + 1 == strlen(folder) && strncmp(path, folder, strlen(path)) == 0);
}

static int due(void) {
    long number = seen++;
    if (at < 0 || number < at || (number > at && !lasts)) return 0;
    hits++;
    return 1;
}

static int refused(void) { *__errno_location() = how; return -1; }

/* A write that is refused has left half of its bytes. */
#define WRITES(name, params, half, all)                                                                               \
    ssize name params {                                                                                               \
        ssize (*real) params = NEXT(#name);                                                                           \
        if (how && below_fd(fd) && due()) { if (count > 1) half; return refused(); }                                  \
        return all;                                                                                                   \
    }
WRITES(write, (int fd, const void *data, size count), real(fd, data, count / 2), real(fd, data, count))
WRITES(pwrite, (int fd, const void *data, size count, offset place), real(fd, data, count / 2, place),
       real(fd, data, count, place))
WRITES(pwrite64, (int fd, const void *data, size count, offset place), real(fd, data, count / 2, place),
       real(fd, data, count, place))

/* A full disk refuses no read. */
#define READS(name, params, half, all)                                                                                \
    ssize name params {                                                                                               \
        ssize (*real) params = NEXT(#name);                                                                           \
        if (how != ENOSPC && below_fd(fd) && due()) return how ? refused() : half;                                    \
        return all;                                                                                                   \
    }
READS(read, (int fd, void *data, size count), real(fd, data, count / 2), real(fd, data, count))
READS(pread, (int fd, void *data, size count, offset place), real(fd, data, count / 2, place),
      real(fd, data, count, place))
READS(pread64, (int fd, void *data, size count, offset place), real(fd, data, count / 2, place),
      real(fd, data, count, place))

#define ON_FD(name, params, all)                                                                                      \
    int name params {                                                                                                 \
        int (*real) params = NEXT(#name);                                                                             \
        return how && below_fd(fd) && due() ? refused() : all;                                                        \
    }
ON_FD(fsync, (int fd), real(fd))
ON_FD(fdatasync, (int fd), real(fd))
ON_FD(ftruncate, (int fd, offset length), real(fd, length))
ON_FD(ftruncate64, (int fd, offset length), real(fd, length))

#define ON_PATH(name, params, all)                                                                                    \
    int name params {                                                                                                 \
        int (*real) params = NEXT(#name);                                                                             \
        return how && below(path) && due() ? refused() : all;                                                         \
    }
ON_PATH(rename, (const char *path, const char *to), real(path, to))
ON_PATH(mkdir, (const char *path, unsigned mode), real(path, mode))
ON_PATH(link, (const char *path, const char *to), real(path, to))

#define OPENS(name)                                                                                                   \
    int name(const char *path, int flags, unsigned mode) {                                                            \
        int (*real)(const char *, int, unsigned) = NEXT(#name);                                                       \
        if (how && (how != ENOSPC || flags & O_CREAT) && below(path) && due()) return refused();                      \
        return real(path, flags, mode);                                                                               \
    }
OPENS(open)
OPENS(open64)
