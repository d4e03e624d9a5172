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
}

// Append writes at the handle's offset, which nothing else moves: the handle has
// created the file, and ReadAt has an offset of its own. WriteAt will not do:
// when a write fails after a part, it says that nothing was written.
func (f *file) Append(p []byte) (int, error) {
	if f.readOnly {
		return 0, fail("append", f.name, fs.ErrPermission)
	}
	n, err := f.f.Write(p)
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
