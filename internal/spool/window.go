package spool

import (
	"errors"
	"hash/crc32"
	"io"
	"syscall"
)

// maxPrefix is greater than the part of any body before its lines or payload.
// Keys, names and types are bounded.
const maxPrefix = 16 << 10

// record is a record read by a scan.
type record struct {
	recordHead
	offset int64  // of its head
	prefix []byte // beginning of the body
	body   extent
}

func (r *record) end() int64 { return r.offset + recordHeadSize + r.length }

func (r *record) pin() pin { return pin{r.body.file, 1, recordHeadSize + r.length} }

// window reads the records of a file, mostly forwards, with a small buffer.
type window struct {
	f             *file
	size          int64 // bytes to read; at most the file's size
	in            io.ReaderAt
	buf           []byte
	at            int64  // offset of data in the file
	data          []byte // valid part of buf
	prefix        []byte
	sawUnreadable bool // some bytes could not be read and count as zeros
}

// newWindow returns a window on the first size bytes of f. With zeroFill,
// unreadable bytes count as zeros.
func (fs *files) newWindow(f *file, size int64, zeroFill bool) *window {
	w := &window{f: f, size: size, in: readerAt{fs, f}, buf: make([]byte, 256<<10), prefix: make([]byte, maxPrefix)}
	if zeroFill {
		w.in = zeroFillReader{readerAt{fs, f}, &w.sawUnreadable}
	}
	return w
}

// bytesAt returns bytes from off on: at least n, unless the window ends before.
// They are valid until the next call.
func (w *window) bytesAt(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(0, w.size-off)))
	if off < w.at || off+int64(n) > w.at+int64(len(w.data)) {
		read, err := w.in.ReadAt(w.buf[:min(int64(len(w.buf)), w.size-off)], off)
		w.at, w.data = off, w.buf[:read]
		if err := ignoreEOF(err); err != nil {
			return nil, err
		}
	}
	return w.data[min(off-w.at, int64(len(w.data))):], nil
}

// record returns the record at off, or errInvalidRecord.
func (w *window) record(off int64) (record, error) {
	b, err := w.bytesAt(off, recordHeadSize)
	if err != nil {
		return record{}, err
	}
	h, err := decodeRecordHead(b, w.f.salt)
	if err != nil || h.length > w.size-off-recordHeadSize {
		return record{}, errInvalidRecord
	}
	r := record{recordHead: h, offset: off, body: extent{w.f, off + recordHeadSize, h.length}}
	sum, kept := w.f.salt, 0
	for at := r.body.offset; at < r.end(); {
		b, err := w.bytesAt(at, 1)
		if err != nil {
			return record{}, err
		}
		if len(b) == 0 {
			return record{}, errInvalidRecord // the file was truncated
		}
		b = b[:min(int64(len(b)), r.end()-at)]
		sum = crc32.Update(sum, castagnoli, b)
		kept += copy(w.prefix[kept:], b)
		at += int64(len(b))
	}
	if sum != h.bodyCRC {
		return record{}, errInvalidRecord
	}
	r.prefix = w.prefix[:kept]
	return r, nil
}

// records calls visit for each record from off on. It stops at the first record
// that is invalid, or for which visit returns errInvalidRecord, and returns its
// offset.
func (w *window) records(off int64, visit func(record) error) (int64, error) {
	for {
		r, err := w.record(off)
		if err == nil {
			err = visit(r)
		}
		if errors.Is(err, errInvalidRecord) {
			return off, nil
		}
		if err != nil {
			return off, err
		}
		off = r.end()
	}
}

// nextRecord returns the offset of the first valid record at or after off, or
// the end of the window. Bytes made by others do not pass for a record, because
// the checksums depend on the file's salt.
func (w *window) nextRecord(off int64) (int64, error) {
	for off <= w.size-recordHeadSize {
		b, err := w.bytesAt(off, recordHeadSize)
		if err != nil {
			return off, err
		}
		if len(b) < recordHeadSize {
			break // the file was truncated
		}
		n := candidate(b, w.f.salt)
		off += int64(n)
		if n > len(b)-recordHeadSize {
			continue
		}
		if _, err := w.record(off); !errors.Is(err, errInvalidRecord) {
			return off, err
		}
		off++
	}
	return w.size, nil
}

// candidate returns the offset of the first valid record head in b, or the
// number of bytes that begin none.
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

// maxGroupWatermark returns the greatest watermark in the groups from off on.
func (w *window) maxGroupWatermark(off int64) (most int64, err error) {
	if used, err := w.endOfData(off); err != nil || used == off {
		return 0, err
	}
	for {
		if off, err = w.nextRecord(off); err != nil || off == w.size {
			return most, err
		}
		r, err := w.record(off)
		if err != nil {
			return most, ignoreInvalid(err)
		}
		if r.kind == recordGroup {
			if n, err := decodeGroup(r.prefix); err == nil {
				most = max(most, n)
			}
		}
		off = r.end()
	}
}

// endOfData returns the offset after the last byte that is not zero.
// Preallocated zeros may follow the records.
func (w *window) endOfData(off int64) (end int64, err error) {
	for end = off; off < w.size; {
		b, err := w.bytesAt(off, 1)
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

// ignoreEOF returns nil for the end of the file, where a record may be torn.
func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// ignoreInvalid returns nil for an invalid record.
func ignoreInvalid(err error) error {
	if errors.Is(err, errInvalidRecord) {
		return nil
	}
	return err
}

type readerAt struct {
	fs *files
	f  *file
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.fs.readAt(r.f, p, off) }

// zeroFillReader returns zeros for pages that the disk cannot read. If no other
// page can be read either, it returns errDiskUnreadable, because the disk may
// come back complete.
type zeroFillReader struct {
	readerAt
	sawUnreadable *bool
}

const pageSize = 4096

func (r zeroFillReader) ReadAt(p []byte, off int64) (n int, err error) {
	if n, err = r.readerAt.ReadAt(p, off); !isLost(err) {
		return n, err
	}
	for n = 0; n < len(p); {
		at := off + int64(n)
		read, err := r.readPage(p[n:min(len(p), n+pageSize-int(at%pageSize))], at)
		n += read
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// readPage reads within one page. If the read fails and another page can be
// read, it retries, because the disk may have come back in between.
func (r zeroFillReader) readPage(p []byte, off int64) (n int, err error) {
	for range 5 {
		if n, err = r.readerAt.ReadAt(p, off); !isLost(err) {
			return n, err
		}
		if errors.Is(err, syscall.EIO) && !r.fs.canReadElsewhere(r.f, off) {
			return 0, errDiskUnreadable
		}
	}
	*r.sawUnreadable = true
	clear(p)
	return len(p), nil
}
