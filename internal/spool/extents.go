package spool

import (
	"errors"
	"io"
	"sort"
)

// extents is a list of byte slices that reads as one file. An attempt can
// rewind and read again without copying the object.
type extents struct {
	parts [][]byte
	ends  []int64 // ends[i] is the offset after parts[i]
}

func (e *extents) add(part []byte) {
	e.parts = append(e.parts, part)
	e.ends = append(e.ends, e.size()+int64(len(part)))
}

func (e *extents) size() int64 {
	if len(e.ends) == 0 {
		return 0
	}
	return e.ends[len(e.ends)-1]
}

// ReadAt is part of [io.ReaderAt].
func (e *extents) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("spool: negative offset")
	}
	i := sort.Search(len(e.ends), func(i int) bool { return e.ends[i] > off })
	for ; i < len(e.parts) && n < len(p); i++ {
		start := e.ends[i] - int64(len(e.parts[i]))
		n += copy(p[n:], e.parts[i][off+int64(n)-start:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// reader reads a copy of the list. A transport may still read the body of an
// attempt that has returned, after the segment was removed.
func (e *extents) reader() io.ReadSeeker {
	c := *e
	return io.NewSectionReader(&c, 0, c.size())
}
