package vfs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"unsafe"
)

var (
	kernel32     = syscall.NewLazyDLL("kernel32.dll")
	lockFileEx   = kernel32.NewProc("LockFileEx")
	unlockFileEx = kernel32.NewProc("UnlockFileEx")
)

const (
	lockfileFailImmediately = 1
	lockfileExclusiveLock   = 2

	errorLockViolation = syscall.Errno(33)
)

// tryLock locks the file's first byte, which need not exist. Windows releases the
// lock some time after the process has ended. Child processes do not inherit the
// handle.
func tryLock(f *os.File) error {
	err := firstByte(f, func(fd uintptr, at unsafe.Pointer) (uintptr, error) {
		ok, _, err := lockFileEx.Call(fd, lockfileFailImmediately|lockfileExclusiveLock, 0, 1, 0, uintptr(at))
		return ok, err
	})
	if errors.Is(err, errorLockViolation) || errors.Is(err, syscall.ERROR_IO_PENDING) {
		return errHeld
	}
	return err
}

// unlock releases the lock explicitly: after a close, Windows may release it later.
func unlock(f *os.File) error {
	return firstByte(f, func(fd uintptr, at unsafe.Pointer) (uintptr, error) {
		ok, _, err := unlockFileEx.Call(fd, 0, 1, 0, uintptr(at))
		return ok, err
	})
}

// firstByte calls call with f's handle and an OVERLAPPED for offset 0.
func firstByte(f *os.File, call func(fd uintptr, at unsafe.Pointer) (ok uintptr, err error)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ok uintptr
	var result error
	if err := raw.Control(func(fd uintptr) {
		ok, result = call(fd, unsafe.Pointer(new(syscall.Overlapped)))
	}); err != nil {
		return fs.ErrClosed // package os has a private error for it
	}
	if ok != 0 {
		return nil
	}
	return result
}
