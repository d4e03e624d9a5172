//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags open a file to read it, and to sync it. O_NONBLOCK is for the FIFO
// that takes the file's place after we have looked.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// syncDir syncs a directory. EINVAL is how a file system says that it cannot;
// then there is nothing to wait for.
func syncDir(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// control calls a system call with f's descriptor until no signal interrupts it.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) {
		for {
			if result = call(int(fd)); result != syscall.EINTR {
				return
			}
		}
	}); err != nil {
		return fs.ErrClosed // package os has a private error for it
	}
	return result
}

// checkAccess refuses a directory that anyone but the effective user may have
// put something into.
func checkAccess(path string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return &RefusedError{path, ErrOwner, fmt.Sprintf(
			"its user id is %d and this process runs as %d; name a subdirectory that does not exist yet", st.Uid, os.Geteuid())}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return &RefusedError{path, ErrMode, fmt.Sprintf(
			"its mode is %04o and must be 0700; name a subdirectory that does not exist yet, or chmod it if nobody else has used it", perm)}
	}
	return nil
}
