package vfs

import (
	"math"
	"os"
	"syscall"
)

const mntLocal = 0x1000 // MNT_LOCAL of sys/mount.h

// syncFile also flushes the drive's cache (F_FULLFSYNC); fsync alone does not on
// macOS. File.Sync uses F_FULLFSYNC.
func syncFile(f *os.File) error { return f.Sync() }

func fileSystem(f *os.File) (FileSystem, error) {
	var st syscall.Statfs_t
	if err := control(f, func(fd int) error { return syscall.Fstatfs(fd, &st) }); err != nil {
		return FileSystem{}, err
	}
	name := make([]byte, 0, len(st.Fstypename))
	for _, c := range st.Fstypename {
		if c == 0 {
			break
		}
		name = append(name, byte(c))
	}
	return FileSystem{Name: string(name), Network: st.Flags&mntLocal == 0}, nil
}

func pidNamespace() string { return "" }

func freeBytes(f *os.File) (int64, error) {
	var st syscall.Statfs_t
	if err := control(f, func(fd int) error { return syscall.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(max(1, st.Bsize)))) * int64(st.Bsize), nil
}
