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

	appended int64 // bytes appended, which is the handle's offset
	reserved int64 // number of zeros after them
}

// zeros is one write of Reserve.
var zeros [64 << 10]byte

// Append writes at the handle's offset. No other call moves the offset: the handle
// has created the file, and ReadAt and Reserve pass an explicit offset. Append
// does not use WriteAt, which returns 0 when it fails after a partial write.
func (f *file) Append(p []byte) (int, error) {
	if f.readOnly {
		return 0, pathError("append", f.name, fs.ErrPermission)
	}
	n, err := f.f.Write(p)
	f.appended += int64(n)
	f.reserved = max(0, f.reserved-int64(n))
	return n, pathError("append", f.name, err)
}

// Reserve does not count the zeros of a write that failed after a part: the next
// Reserve writes them again.
func (f *file) Reserve(n int64) error {
	switch {
	case f.readOnly:
		return pathError("reserve", f.name, fs.ErrPermission)
	case n <= 0:
		return pathError("reserve", f.name, fs.ErrInvalid)
	}
	for end := f.reserved + n; f.reserved < end; {
		piece := zeros[:min(end-f.reserved, int64(len(zeros)))]
		if _, err := f.f.WriteAt(piece, f.appended+f.reserved); err != nil {
			return pathError("reserve", f.name, err)
		}
		f.reserved += int64(len(piece))
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	return n, pathError("read", f.name, err)
}

func (f *file) Sync() error { return pathError("sync", f.name, syncFile(f.f)) }

func (f *file) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, pathError("stat", f.name, err)
	}
	return info.Size(), nil
}

func (f *file) Close() error { return pathError("close", f.name, f.f.Close()) }
