package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A journal file is a header and records, one behind the other. Numbers are
// little-endian. Do not change: files of earlier versions must stay readable. The
// header is that of every version, so that a torn one is told from a later one.
//
//	0   8  "S3SINKJ\n"
//	8   4  version, 1
//	12  4  salt, random; the name has it too
//	16  8  number of the file: files are read in this order
//	24  8  when it was made, Unix milliseconds
//	32  4  CRC-32C of the 32 bytes before
//
// A record:
//
//	0   4  type
//	4   4  length of the body
//	8   4  CRC-32C of the body
//	12  4  CRC-32C of the 12 bytes before
//	16     body
//
// Both checksums of a record begin with the salt of its file, so that stale
// bytes of a disk block that held another file never pass for a record.
const (
	fileMagic      = "S3SINKJ\n"
	fileVersion    = 1
	fileHeaderSize = 36
	recordHeadSize = 16
)

type recordType uint32

// What a record says. Bodies hold numbers as varints, text with its length
// before it, and times as Unix milliseconds.
const (
	recordGroup     recordType = 1 + iota // durable u64: the file is on disk up to there
	recordStage                           // block, offset, lines
	recordFrame                           // segment, index, block, payload
	recordSeal                            // segment: it is complete
	recordDelivered                       // segment: it is in S3, or set aside
	recordDoubt                           // number of a file u64, durable u64: it has ended there, or a sync of it has failed
	recordLastID                          // u64: the last id that was drawn for keys and runs
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errBad is a record that is not there, or not whole.
var errBad = errors.New("not a record")

type fileHeader struct {
	salt   uint32
	number uint64
	made   time.Time
}

func (h fileHeader) encode() []byte {
	b := make([]byte, 0, fileHeaderSize)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, fileVersion)
	b = binary.LittleEndian.AppendUint32(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.made.UnixMilli()))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errVersion is a file of a version that this one does not know.
type errVersion uint32

func (e errVersion) Error() string { return fmt.Sprintf("journal of version %d", uint32(e)) }

func decodeFileHeader(b []byte) (h fileHeader, err error) {
	if len(b) < fileHeaderSize || string(b[:8]) != fileMagic {
		return h, errBad
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.LittleEndian.Uint32(b[32:]) {
		return h, errBad
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != fileVersion {
		return h, errVersion(v)
	}
	h.salt = binary.LittleEndian.Uint32(b[12:])
	h.number = binary.LittleEndian.Uint64(b[16:])
	h.made = time.UnixMilli(int64(binary.LittleEndian.Uint64(b[24:])))
	return h, nil
}

// recordHead is what is known of a record before its body.
type recordHead struct {
	kind    recordType
	length  int64
	bodyCRC uint32
}

func decodeRecordHead(b []byte, salt uint32) (recordHead, error) {
	if len(b) < recordHeadSize || crc32.Update(salt, castagnoli, b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
		return recordHead{}, errBad
	}
	return recordHead{
		kind:    recordType(binary.LittleEndian.Uint32(b)),
		length:  int64(binary.LittleEndian.Uint32(b[4:])),
		bodyCRC: binary.LittleEndian.Uint32(b[8:]),
	}, nil
}

// blockID names a block. What one id stands for never changes.
type blockID struct {
	run       string
	partition uint64
	block     uint64
}

// segmentID names a segment.
type segmentID struct {
	run      string
	sequence uint64
}

// stageRecord is lines of a block that has no frame yet: those from offset on.
type stageRecord struct {
	blockID
	source      string
	day         time.Time
	offset      int64
	first, last time.Time // received
}

// frameRecord is a frame of a segment: the first one brings its header.
type frameRecord struct {
	segmentID
	index  uint64
	block  blockID
	header *Header // with index 0
	frame  Frame   // its payload is the end of the body
}

// sealRecord says what a complete segment is.
type sealRecord struct {
	segmentID
	frames uint64
	events int64
	size   int64
	crc    uint32
}

// deliveredRecord says that nobody needs a segment any more.
type deliveredRecord struct{ segmentID }

// doubtRecord says how much of an earlier file is known to be on disk.
type doubtRecord struct {
	file    uint64
	durable int64
}

// writer makes records, for a file with this salt.
type writer struct {
	salt uint32
	buf  []byte
	head int // where the record under way begins
}

func (w *writer) begin(kind recordType) {
	w.head = len(w.buf)
	w.buf = append(w.buf, make([]byte, recordHeadSize)...)
	binary.LittleEndian.PutUint32(w.buf[w.head:], uint32(kind))
}

// end completes the record.
func (w *writer) end() {
	head, body := w.buf[w.head:w.head+recordHeadSize], w.buf[w.head+recordHeadSize:]
	binary.LittleEndian.PutUint32(head[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Update(w.salt, castagnoli, body))
	binary.LittleEndian.PutUint32(head[12:], crc32.Update(w.salt, castagnoli, head[:12]))
}

// last returns where in f the record will be that was written last, before the
// writer is spilled.
func (w *writer) last(f *file) extent {
	return extent{f, f.size + int64(w.head), int64(len(w.buf) - w.head)}
}

func (w *writer) uint(n uint64)       { w.buf = binary.AppendUvarint(w.buf, n) }
func (w *writer) int(n int64)         { w.uint(uint64(n)) } // never negative
func (w *writer) fixed(n uint32)      { w.buf = binary.LittleEndian.AppendUint32(w.buf, n) }
func (w *writer) time(t time.Time)    { w.buf = binary.AppendVarint(w.buf, t.UnixMilli()) }
func (w *writer) text(s string)       { w.uint(uint64(len(s))); w.buf = append(w.buf, s...) }
func (w *writer) block(id blockID)    { w.text(id.run); w.uint(id.partition); w.uint(id.block) }
func (w *writer) segment(s segmentID) { w.text(s.run); w.uint(s.sequence) }

func (w *writer) group(durable int64) {
	w.begin(recordGroup)
	w.int(durable)
	w.end()
}

func (w *writer) lastID(id uint64) {
	w.begin(recordLastID)
	w.uint(id)
	w.end()
}

func (w *writer) stage(s *stageRecord, lines [][]byte) {
	w.begin(recordStage)
	w.block(s.blockID)
	w.text(s.source)
	w.time(s.day)
	w.int(s.offset)
	w.time(s.first)
	w.time(s.last)
	for _, piece := range lines {
		w.buf = append(w.buf, piece...)
	}
	w.end()
}

func (w *writer) frame(f *frameRecord) {
	w.begin(recordFrame)
	w.segment(f.segmentID)
	w.uint(f.index)
	w.block(f.block)
	w.int(f.frame.Events)
	w.time(f.frame.First)
	w.time(f.frame.Last)
	w.int(f.frame.Raw)
	w.fixed(f.frame.RawCRC)
	w.fixed(f.frame.CRC)
	if f.index == 0 {
		h := f.header
		w.text(h.Bucket)
		w.text(h.Key)
		w.text(h.Source)
		w.time(h.Day)
		w.time(h.Opened)
		w.text(h.ContentType)
		w.text(h.ContentEncoding)
	}
	w.buf = append(w.buf, f.frame.Payload...)
	w.end()
}

func (w *writer) seal(s *sealRecord) {
	w.begin(recordSeal)
	w.segment(s.segmentID)
	w.uint(s.frames)
	w.int(s.events)
	w.int(s.size)
	w.fixed(s.crc)
	w.end()
}

func (w *writer) delivered(d deliveredRecord) {
	w.begin(recordDelivered)
	w.segment(d.segmentID)
	w.end()
}

func (w *writer) doubt(d doubtRecord) {
	w.begin(recordDoubt)
	w.uint(d.file)
	w.int(d.durable)
	w.end()
}

// reader takes the body of a record apart. After an error it returns zeroes.
type reader struct {
	b     []byte
	bad   bool
	names names
}

// names are texts that many records have. There is one string for each of them,
// however often it is read.
type names map[string]string

func (n names) get(text []byte) string {
	if known, ok := n[string(text)]; ok {
		return known
	}
	name := string(text)
	if n != nil {
		n[name] = name
	}
	return name
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int() int64 {
	n := r.uint()
	if n > 1<<62 {
		r.fail()
		return 0
	}
	return int64(n)
}

func (r *reader) fixed() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	n := binary.LittleEndian.Uint32(r.b)
	r.b = r.b[4:]
	return n
}

func (r *reader) time() time.Time {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return time.Time{}
	}
	r.b = r.b[size:]
	return time.UnixMilli(n).UTC()
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) text() string       { return string(r.bytes()) }
func (r *reader) name() string       { return r.names.get(r.bytes()) }
func (r *reader) block() blockID     { return blockID{r.name(), r.uint(), r.uint()} }
func (r *reader) segment() segmentID { return segmentID{r.name(), r.uint()} }

func (r *reader) err() error {
	if r.bad {
		return errBad
	}
	return nil
}

// decodeStage returns a stage without its lines, and how long they are: they are
// the end of the body, of which the beginning is enough.
func decodeStage(body []byte, length int64, known names) (s stageRecord, lines int64, err error) {
	r := &reader{b: body, names: known}
	s.blockID = r.block()
	s.source = r.name()
	s.day = r.time()
	s.offset = r.int()
	s.first = r.time()
	s.last = r.time()
	return s, length - int64(len(body)-len(r.b)), r.err()
}

// decodeFrame returns a frame without its payload, and how long that is.
func decodeFrame(body []byte, length int64, known names) (f frameRecord, payload int64, err error) {
	r := &reader{b: body, names: known}
	f.segmentID = r.segment()
	f.index = r.uint()
	f.block = r.block()
	f.frame.Events = r.int()
	f.frame.First = r.time()
	f.frame.Last = r.time()
	f.frame.Raw = r.int()
	f.frame.RawCRC = r.fixed()
	f.frame.CRC = r.fixed()
	if f.index == 0 && !r.bad {
		f.header = &Header{
			RunID: f.run, Sequence: f.sequence,
			Bucket: r.name(), Key: r.text(), Source: r.name(), Day: r.time(), Opened: r.time(),
			ContentType: r.name(), ContentEncoding: r.name(),
		}
	}
	return f, length - int64(len(body)-len(r.b)), r.err()
}

func decodeSeal(body []byte, known names) (s sealRecord, err error) {
	r := &reader{b: body, names: known}
	s.segmentID = r.segment()
	s.frames = r.uint()
	s.events = r.int()
	s.size = r.int()
	s.crc = r.fixed()
	return s, r.err()
}

func decodeDelivered(body []byte, known names) (d deliveredRecord, err error) {
	r := &reader{b: body, names: known}
	d.segmentID = r.segment()
	return d, r.err()
}

func decodeDoubt(body []byte) (d doubtRecord, err error) {
	r := &reader{b: body}
	d.file = r.uint()
	d.durable = r.int()
	return d, r.err()
}

func decodeLastID(body []byte) (id uint64, err error) {
	r := &reader{b: body}
	id = r.uint()
	return id, r.err()
}

func decodeGroup(body []byte) (durable int64, err error) {
	r := &reader{b: body}
	durable = r.int()
	return durable, r.err()
}
