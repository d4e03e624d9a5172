//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags are the flags to open a file for reading and Sync. With O_NONBLOCK
// the call does not wait if a FIFO has replaced the file since its Lstat.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// syncDir syncs a directory. EINVAL means that the file system has no such
// operation, so it is not an error.
func syncDir(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// control makes a system call with f's descriptor, and repeats it after EINTR.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) {
		for {
			if result = call(int(fd)); !errors.Is(result, syscall.EINTR) {
				return
			}
		}
	}); err != nil {
		return fs.ErrClosed // package os has a private error for it
	}
	return result
}

// isOurs reports whether the effective user owns a file.
func isOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(st.Uid) == os.Geteuid()
}

// sameOwner reports whether two files belong to one user.
func sameOwner(a, b fs.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, ok2 := b.Sys().(*syscall.Stat_t)
	return !ok || !ok2 || x.Uid == y.Uid
}

// othersMay reports whether the group or other users have a permission of mask.
func othersMay(info fs.FileInfo, mask fs.FileMode) bool {
	return info.Mode().Perm()&mask&othersAny != 0
}

// ownership names the owner and the mode of a file, and the user of this process.
func ownership(info fs.FileInfo) string {
	owner := "unknown"
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprint(st.Uid)
	}
	return fmt.Sprintf("its user id is %s, its mode is %v, and this process runs as user %d", owner, info.Mode(), os.Geteuid())
}

// isRunning reports whether a process of any user has this id.
func isRunning(pid int) bool {
	return pid > 0 && syscall.Kill(pid, 0) != syscall.ESRCH
}

// ErrFull is the error of a write to a full volume.
var ErrFull error = syscall.ENOSPC

// IsFull reports whether err means that the volume is full or a quota is used up.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
