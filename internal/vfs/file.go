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

	appended int64 // where the handle's offset is
	reserved int64 // zeros from there on
}

// zeros is a piece of what Reserve writes.
var zeros [64 << 10]byte

// Append writes at the handle's offset, which nothing else moves: the handle has
// created the file, and ReadAt and Reserve have offsets of their own. WriteAt
// will not do: when a write fails after a part, it says that nothing was written.
func (f *file) Append(p []byte) (int, error) {
	if f.readOnly {
		return 0, fail("append", f.name, fs.ErrPermission)
	}
	n, err := f.f.Write(p)
	f.appended += int64(n)
	f.reserved = max(0, f.reserved-int64(n))
	return n, fail("append", f.name, err)
}

// Reserve does not count the zeros of a piece that has failed after a part: the
// next one writes them again.
func (f *file) Reserve(n int64) error {
	switch {
	case f.readOnly:
		return fail("reserve", f.name, fs.ErrPermission)
	case n <= 0:
		return fail("reserve", f.name, fs.ErrInvalid)
	}
	for end := f.reserved + n; f.reserved < end; {
		piece := zeros[:min(end-f.reserved, int64(len(zeros)))]
		if _, err := f.f.WriteAt(piece, f.appended+f.reserved); err != nil {
			return fail("reserve", f.name, err)
		}
		f.reserved += int64(len(piece))
	}
	return nil
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
