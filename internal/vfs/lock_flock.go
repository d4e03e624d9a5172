//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package vfs

import (
	"os"
	"syscall"
)

// tryLock locks the open file, not the process as fcntl would: a second Dir of
// this process is kept out too, and closing another handle of the file does not
// release the lock. The descriptor closes on exec, so children do not hold it.
func tryLock(f *os.File) error {
	err := control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB) })
	if err == syscall.EWOULDBLOCK {
		return errHeld
	}
	return err
}

// unlock does not leave it to closing the file: a child between fork and exec
// has the file open too, and would hold the lock until then.
func unlock(f *os.File) error {
	return control(f, func(fd int) error { return syscall.Flock(fd, syscall.LOCK_UN) })
}
