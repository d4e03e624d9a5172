//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package vfs

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks with flock, which belongs to the open file and not, as with fcntl,
// to the process. So it also excludes a second Dir of this process, and closing
// another handle of the file does not release the lock. The descriptor closes on
// exec, so child processes do not hold the lock.
func tryLock(f *os.File) error {
	err := control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errHeld
	}
	return err
}

// unlock releases the lock explicitly. Closing the file is not enough: a child
// process between fork and exec has the file open too, and would hold the lock.
func unlock(f *os.File) error {
	return control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_UN) })
}
