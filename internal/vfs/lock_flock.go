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
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) {
		for {
			if result = syscall.Flock(int(fd), syscall.LOCK_EX|syscall.LOCK_NB); result != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	if result == syscall.EWOULDBLOCK {
		return errHeld
	}
	return result
}
