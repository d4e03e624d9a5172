package spool

import (
	"errors"
	"hash/crc32"
	"io"
	"syscall"
)

// maxPrefix is more than any body has before its lines or its payload: keys,
// names and types are bounded.
const maxPrefix = 16 << 10

// record is one record as a scan sees it.
type record struct {
	recordHead
	offset int64  // of its head
	prefix []byte // of the body
	body   extent
}

func (r *record) end() int64 { return r.offset + recordHeadSize + r.length }

func (r *record) share() share { return share{r.body.file, 1, recordHeadSize + r.length} }

// window reads the records of a file, mostly forth. It keeps little.
type window struct {
	f      *file
	size   int64 // of the file, or less
	in     io.ReaderAt
	buf    []byte
	at     int64  // of data in the file
	data   []byte // what is in buf
	prefix []byte
	unread bool // the disk cannot read some of it
}

// window returns one for the first bytes of f. With blind, what the disk cannot
// read is zeroes.
func (fs *files) window(f *file, size int64, blind bool) *window {
	w := &window{f: f, size: size, in: readerAt{fs, f}, buf: make([]byte, 256<<10), prefix: make([]byte, maxPrefix)}
	if blind {
		w.in = blindReader{readerAt{fs, f}, &w.unread}
	}
	return w
}

// from returns what there is from off on: at least n bytes, if the file has
// them. They stay until the next call.
func (w *window) from(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(0, w.size-off)))
	if off < w.at || off+int64(n) > w.at+int64(len(w.data)) {
		read, err := w.in.ReadAt(w.buf[:min(int64(len(w.buf)), w.size-off)], off)
		w.at, w.data = off, w.buf[:read]
		if err := notWhole(err); err != nil {
			return nil, err
		}
	}
	return w.data[min(off-w.at, int64(len(w.data))):], nil
}

// record returns the record at off, or errBad if none is whole there.
func (w *window) record(off int64) (record, error) {
	b, err := w.from(off, recordHeadSize)
	if err != nil {
		return record{}, err
	}
	h, err := decodeRecordHead(b, w.f.salt)
	if err != nil || h.length > w.size-off-recordHeadSize {
		return record{}, errBad
	}
	r := record{recordHead: h, offset: off, body: extent{w.f, off + recordHeadSize, h.length}}
	sum, kept := w.f.salt, 0
	for at := r.body.offset; at < r.end(); {
		b, err := w.from(at, 1)
		if err != nil {
			return record{}, err
		}
		if len(b) == 0 {
			return record{}, errBad // the file was cut
		}
		b = b[:min(int64(len(b)), r.end()-at)]
		sum = crc32.Update(sum, castagnoli, b)
		kept += copy(w.prefix[kept:], b)
		at += int64(len(b))
	}
	if sum != h.bodyCRC {
		return record{}, errBad
	}
	r.prefix = w.prefix[:kept]
	return r, nil
}

// records calls visit for each record from off on, up to the first that is not
// whole, or is errBad to visit, and returns where that is.
func (w *window) records(off int64, visit func(record) error) (int64, error) {
	for {
		r, err := w.record(off)
		if err == nil {
			err = visit(r)
		}
		if errors.Is(err, errBad) {
			return off, nil
		}
		if err != nil {
			return off, err
		}
		off = r.end()
	}
}

// next returns where the next record begins that is whole, at off or behind, or
// the end of the file. Nobody who does not know the file's salt can make bytes
// that pass for one.
func (w *window) next(off int64) (int64, error) {
	for off <= w.size-recordHeadSize {
		b, err := w.from(off, recordHeadSize)
		if err != nil {
			return off, err
		}
		if len(b) < recordHeadSize {
			break // the file was cut
		}
		n := candidate(b, w.f.salt)
		off += int64(n)
		if n > len(b)-recordHeadSize {
			continue
		}
		if _, err := w.record(off); !errors.Is(err, errBad) {
			return off, err
		}
		off++
	}
	return w.size, nil
}

// candidate returns where in b the first head is, or how many bytes hold none.
func candidate(b []byte, salt uint32) int {
	last := len(b) - recordHeadSize
	for i := 0; i <= last; i++ {
		if b[i] != 0 && b[i+1]|b[i+2]|b[i+3] == 0 { // types are small numbers
			if _, err := decodeRecordHead(b[i:], salt); err == nil {
				return i
			}
		}
	}
	return last + 1
}

// durable returns what the groups from off on say is on disk.
func (w *window) durable(off int64) (most int64, err error) {
	if used, err := w.used(off); err != nil || used == off {
		return 0, err
	}
	for {
		if off, err = w.next(off); err != nil || off == w.size {
			return most, err
		}
		r, err := w.record(off)
		if err != nil {
			return most, notBad(err)
		}
		if r.kind == recordGroup {
			if n, err := decodeGroup(r.prefix); err == nil {
				most = max(most, n)
			}
		}
		off = r.end()
	}
}

// used returns where the last byte from off on is that is not zero: space may
// be reserved behind it.
func (w *window) used(off int64) (end int64, err error) {
	for end = off; off < w.size; {
		b, err := w.from(off, 1)
		if err != nil || len(b) == 0 {
			return end, err
		}
		for i := len(b) - 1; i >= 0; i-- {
			if b[i] != 0 {
				end = off + int64(i) + 1
				break
			}
		}
		off += int64(len(b))
	}
	return end, nil
}

// notWhole is nil for the end of a file, where a record may break off.
func notWhole(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// notBad is nil for a record that is not whole.
func notBad(err error) error {
	if errors.Is(err, errBad) {
		return nil
	}
	return err
}

type readerAt struct {
	fs *files
	f  *file
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.fs.readAt(r.f, p, off) }

// blindReader has zeroes where the disk cannot read, if it can elsewhere: when it
// gives nothing at all it may come back, and have everything.
type blindReader struct {
	readerAt
	blind *bool
}

const pageSize = 4096

func (r blindReader) ReadAt(p []byte, off int64) (n int, err error) {
	if n, err = r.readerAt.ReadAt(p, off); !isLost(err) {
		return n, err
	}
	for n = 0; n < len(p); {
		at := off + int64(n)
		read, err := r.page(p[n:min(len(p), n+pageSize-int(at%pageSize))], at)
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// page reads within one page. It asks again when the disk has answered
// elsewhere, because it may have come back meanwhile.
func (r blindReader) page(p []byte, off int64) (n int, err error) {
	for range 5 {
		if n, err = r.readerAt.ReadAt(p, off); !isLost(err) {
			return n, err
		}
		if errors.Is(err, syscall.EIO) && !r.fs.answers(r.f, off) {
			return 0, errNoReads
		}
	}
	*r.blind = true
	clear(p)
	return len(p), nil
}
