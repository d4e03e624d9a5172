package vfs

import (
	"io/fs"
	"os"
)

// file is a file of the operating system.
type file struct {
	name     string
	f        *os.File
	readOnly bool
	end      int64 // where the next Append writes
}

// Append keeps the offset itself: nobody else appends, because this handle has
// created the file, and Windows wants more than the right to append for Sync.
func (f *file) Append(p []byte) (int, error) {
	if f.readOnly {
		return 0, fail("append", f.name, fs.ErrPermission)
	}
	n, err := f.f.WriteAt(p, f.end)
	f.end += int64(n)
	return n, fail("append", f.name, err)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	return n, fail("read", f.name, err)
}

func (f *file) Sync() error { return fail("sync", f.name, syncFile(f.f)) }

func (f *file) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, fail("stat", f.name, err)
	}
	return info.Size(), nil
}

func (f *file) Close() error { return fail("close", f.name, f.f.Close()) }
