package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A journal file is a header followed by records. Numbers are little-endian. Do
// not change the format: files of earlier versions must stay readable. Every
// version has this header, so a reader can tell a torn header from a later
// version.
//
//	0   8  "S3SINKJ\n"
//	8   4  version, 1
//	12  4  salt, random; also in the file's name
//	16  8  number of the file; files are read in this order
//	24  8  time of creation, Unix milliseconds
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
// The salt of the file is the seed of both checksums. So stale bytes in a disk
// block that belonged to another file never pass for a record.
const (
	fileMagic      = "S3SINKJ\n"
	fileVersion    = 1
	fileHeaderSize = 36
	recordHeadSize = 16
)

type recordType uint32

// Types of records. Bodies have numbers as varints, strings with their length
// before them, and times as Unix milliseconds.
const (
	recordGroup     recordType = 1 + iota // watermark of this file, u64
	recordStage                           // block, offset, lines
	recordFrame                           // segment, index, block, payload
	recordSeal                            // segment is complete
	recordDelivered                       // segment is in S3 or quarantined
	recordWatermark                       // number of an earlier file u64, its watermark u64: it was ended, or a write to it failed
	recordLastID                          // u64: last id drawn for keys and runs
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errInvalidRecord reports bytes that are no record, or a torn or corrupt one.
var errInvalidRecord = errors.New("invalid journal record")

type fileHeader struct {
	salt    uint32
	number  uint64
	created time.Time
}

func (h fileHeader) encode() []byte {
	b := make([]byte, 0, fileHeaderSize)
	b = append(b, fileMagic...)
	b = binary.LittleEndian.AppendUint32(b, fileVersion)
	b = binary.LittleEndian.AppendUint32(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created.UnixMilli()))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errVersion reports a file of an unknown format version.
type errVersion uint32

func (e errVersion) Error() string { return fmt.Sprintf("journal file of version %d", uint32(e)) }

func decodeFileHeader(b []byte) (h fileHeader, err error) {
	if len(b) < fileHeaderSize || string(b[:8]) != fileMagic {
		return h, errInvalidRecord
	}
	if crc32.Checksum(b[:32], castagnoli) != binary.LittleEndian.Uint32(b[32:]) {
		return h, errInvalidRecord
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != fileVersion {
		return h, errVersion(v)
	}
	h.salt = binary.LittleEndian.Uint32(b[12:])
	h.number = binary.LittleEndian.Uint64(b[16:])
	h.created = time.UnixMilli(int64(binary.LittleEndian.Uint64(b[24:])))
	return h, nil
}

// recordHead is the decoded head of a record.
type recordHead struct {
	kind    recordType
	length  int64
	bodyCRC uint32
}

func decodeRecordHead(b []byte, salt uint32) (recordHead, error) {
	if len(b) < recordHeadSize || crc32.Update(salt, castagnoli, b[:12]) != binary.LittleEndian.Uint32(b[12:]) {
		return recordHead{}, errInvalidRecord
	}
	return recordHead{
		kind:    recordType(binary.LittleEndian.Uint32(b)),
		length:  int64(binary.LittleEndian.Uint32(b[4:])),
		bodyCRC: binary.LittleEndian.Uint32(b[8:]),
	}, nil
}

// blockID identifies a block. One id never names two contents.
type blockID struct {
	run       string
	partition uint64
	block     uint64
}

// segmentID identifies a segment.
type segmentID struct {
	run      string
	sequence uint64
}

// stageRecord has the lines of a block from offset on. The block has no frame
// yet.
type stageRecord struct {
	blockID
	source      string
	day         time.Time
	offset      int64
	first, last time.Time // received
}

// frameRecord is a frame of a segment. The first one also has the header.
type frameRecord struct {
	segmentID
	index  uint64
	block  blockID
	header *Header // only with index 0
	frame  Frame   // its payload ends the body
}

// sealRecord has the totals of a complete segment.
type sealRecord struct {
	segmentID
	frames uint64
	events int64
	size   int64
	crc    uint32
}

// deliveredRecord cancels the frames and the seal of a segment.
type deliveredRecord struct{ segmentID }

// watermarkRecord is the number of bytes of an earlier file that are known to
// be fsynced.
type watermarkRecord struct {
	file     uint64
	syncedTo int64
}

// writer encodes records for a file with this salt.
type writer struct {
	salt  uint32
	buf   []byte
	start int // offset of the last record in buf
}

func (w *writer) begin(kind recordType) {
	w.start = len(w.buf)
	w.buf = append(w.buf, make([]byte, recordHeadSize)...)
	binary.LittleEndian.PutUint32(w.buf[w.start:], uint32(kind))
}

// end fills in the head of the record.
func (w *writer) end() {
	head, body := w.buf[w.start:w.start+recordHeadSize], w.buf[w.start+recordHeadSize:]
	binary.LittleEndian.PutUint32(head[4:], uint32(len(body)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Update(w.salt, castagnoli, body))
	binary.LittleEndian.PutUint32(head[12:], crc32.Update(w.salt, castagnoli, head[:12]))
}

// lastExtent returns the place that the last record will have in f. It must be
// called before the writer is spilled.
func (w *writer) lastExtent(f *file) extent {
	return extent{f, f.size + int64(w.start), int64(len(w.buf) - w.start)}
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

func (w *writer) watermark(d watermarkRecord) {
	w.begin(recordWatermark)
	w.uint(d.file)
	w.int(d.syncedTo)
	w.end()
}

// reader decodes the body of a record. After an error it returns zero values.
type reader struct {
	b     []byte
	bad   bool
	names names
}

// names interns strings that many records repeat.
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
		return errInvalidRecord
	}
	return nil
}

// decodeStage returns a stage without its lines, and their length. The lines
// are the end of the body; body may be only its beginning.
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

// decodeFrame returns a frame without its payload, and the payload's length.
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

func decodeWatermark(body []byte) (d watermarkRecord, err error) {
	r := &reader{b: body}
	d.file = r.uint()
	d.syncedTo = r.int()
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
