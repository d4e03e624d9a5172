package spool

import (
	"encoding/binary"
	"hash/crc32"
)

// Copied returns the number of bytes that cleaning has copied.
func (j *Journal) Copied() int64 {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	return j.cleaner.copiedBytes
}

// FixHeader recomputes the checksum of a file header.
func FixHeader(b []byte) {
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
}

// Parsed is one record of a file.
type Parsed struct {
	From, To int64
	Kind     string
	Data     []byte // lines of a stage, or payload of a frame
}

// ParseRecords returns the records of a file up to the first invalid one.
func ParseRecords(b []byte) (all []Parsed) {
	h, err := decodeFileHeader(b)
	for off := int64(fileHeaderSize); err == nil && off < int64(len(b)); {
		var r recordHead
		if r, err = decodeRecordHead(b[off:], h.salt); err != nil {
			break
		}
		body := b[off+recordHeadSize:][:r.length]
		p := Parsed{From: off, To: off + recordHeadSize + r.length}
		var size int64
		switch r.kind {
		case recordGroup:
			p.Kind = "group"
		case recordStage:
			p.Kind = "stage"
			_, size, err = decodeStage(body, r.length, nil)
		case recordFrame:
			p.Kind = "frame"
			_, size, err = decodeFrame(body, r.length, nil)
		}
		p.Data = body[r.length-size:]
		all = append(all, p)
		off = p.To
	}
	return all
}
