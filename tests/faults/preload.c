/* A library for LD_PRELOAD that lets the system fail, or lie about the time.

   FAULT_EIO=TEXT      reads of files with this text in their path end in EIO
   FAULT_EIO_TIMES=N   only the first N of them
   FAULT_YEARS=N       the clock is N years ahead */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int fails(int fd) {
  static int count = 0;
  const char *text = getenv("FAULT_EIO"), *times = getenv("FAULT_EIO_TIMES");
  char link[32], path[4096];
  if (!text) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  if (!strstr(path, text) || (times && count >= atoi(times))) return 0;
  count++;
  errno = EIO;
  return 1;
}

#define REAL(name) __typeof__(&name) real = dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *to, size_t size) {
  REAL(read);
  return fails(fd) ? -1 : real(fd, to, size);
}

ssize_t pread(int fd, void *to, size_t size, off_t at) {
  REAL(pread);
  return fails(fd) ? -1 : real(fd, to, size, at);
}

ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
  REAL(pread64);
  return fails(fd) ? -1 : real(fd, to, size, at);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  REAL(clock_gettime);
  const char *years = getenv("FAULT_YEARS");
  int code = real(clock, time);
  if (years && clock == CLOCK_REALTIME) time->tv_sec += atoi(years) * 31556952L;
  return code;
}
