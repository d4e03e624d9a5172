package vfs

import (
	"os"
	"syscall"
	"unsafe"
)

var lockFileEx = syscall.NewLazyDLL("kernel32.dll").NewProc("LockFileEx")

const (
	lockfileFailImmediately = 1
	lockfileExclusiveLock   = 2

	errorLockViolation = syscall.Errno(33)
)

// tryLock locks the file's first byte, which need not exist. The system
// releases it with the handle, which children do not inherit.
func tryLock(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ok uintptr
	var result error
	if err := raw.Control(func(fd uintptr) {
		ok, _, result = lockFileEx.Call(fd, lockfileFailImmediately|lockfileExclusiveLock,
			0, 1, 0, uintptr(unsafe.Pointer(new(syscall.Overlapped))))
	}); err != nil {
		return err
	}
	switch {
	case ok != 0:
		return nil
	case result == errorLockViolation || result == syscall.ERROR_IO_PENDING:
		return errHeld
	}
	return result
}
