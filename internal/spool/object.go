package spool

import (
	"errors"
	"io"
	"io/fs"
	"sort"
	"syscall"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/vfs"
)

// extent is a range of a journal file: a record, its body or its payload.
type extent struct {
	file   *file
	offset int64
	size   int64
}

func (e extent) end() int64 { return e.offset + e.size }

// suffix returns the last n bytes. A record ends with its payload.
func (e extent) suffix(n int64) extent { return extent{e.file, e.end() - n, n} }

// payloadReader reads one payload.
type payloadReader struct {
	files *files
	at    extent
}

func (r payloadReader) ReadAt(p []byte, off int64) (int, error) {
	return r.files.readPayload(r.at, p, off)
}

// Object implements [Spool].
func (j *Journal) Object(seg *Segment) io.ReadSeeker {
	o := &diskObject{files: j.files, extents: seg.disk, trailer: seg.trailer}
	at := int64(len(deflate.Header))
	for _, e := range seg.disk {
		o.starts = append(o.starts, at)
		at += e.size
	}
	o.end = at
	return io.NewSectionReader(o, 0, at+int64(len(seg.trailer)))
}

// diskObject reads the object of a segment from its payloads on disk.
type diskObject struct {
	files   *files
	extents []extent
	starts  []int64 // of the extents, in the object
	end     int64   // of the last extent, in the object
	trailer []byte
}

// ReadError reports that an object's bytes could not be read from the disk.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "read the spool: " + e.Err.Error() }
func (e *ReadError) Unwrap() error { return e.Err }

// Lost reports whether a retry will hardly help: the medium is bad, or the file
// was truncated or removed. Other errors pass, such as too many open files.
func (e *ReadError) Lost() bool { return isLost(e.Err) }

func isLost(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, vfs.ErrNotRegular)
}

// ReadAt implements [io.ReaderAt].
func (o *diskObject) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("spool: negative offset")
	}
	for n < len(p) {
		read, err := o.readPart(p[n:], off+int64(n))
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readPart reads from one part of the object: header, payload or trailer.
func (o *diskObject) readPart(p []byte, off int64) (int, error) {
	if off < int64(len(deflate.Header)) {
		return copy(p, deflate.Header[off:]), nil
	}
	if off >= o.end {
		if off-o.end >= int64(len(o.trailer)) {
			return 0, io.EOF
		}
		return copy(p, o.trailer[off-o.end:]), nil
	}
	i := sort.Search(len(o.starts), func(i int) bool { return o.starts[i] > off }) - 1
	e, within := o.extents[i], off-o.starts[i]
	p = p[:min(int64(len(p)), e.size-within)]
	n, err := o.files.readPayload(e, p, within)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file was truncated
	}
	return n, &ReadError{err}
}
