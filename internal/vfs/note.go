package vfs

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// MaxNote is the length of the longest note, in bytes.
const MaxNote = 64

// The LOCK file has two slots for the note, after the holder's record. SetNote
// overwrites the older slot, so a crash cannot tear the last complete note.
//
//	0       8        9         73        77
//	+-------+--------+---------+---------+
//	| count | length | note    | CRC-32C |
//	+-------+--------+---------+---------+
//	                            of 0…73
const (
	noteOffset = 2 << 10
	noteStride = 512 // one sector: a torn write of one slot spares the other
	noteSize   = 77
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errNotLocked = errors.New("the directory is not locked")
	errLongNote  = errors.New("the note is too long")
)

// Note reads both slots and returns the complete note with the higher count.
func (d *dir) Note() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	note, _, err := d.readNote()
	return note, pathError("read", LockName, err)
}

// readNote returns the last complete note and its count. The caller holds d.mu.
func (d *dir) readNote() (note []byte, count uint64, err error) {
	if d.lock == nil {
		return nil, 0, errNotLocked
	}
	for place := range int64(2) {
		b := make([]byte, noteSize)
		if n, err := d.lock.ReadAt(b, noteOffset+place*noteStride); n < noteSize {
			if errors.Is(err, io.EOF) {
				continue
			}
			return nil, 0, err
		}
		if crc32.Checksum(b[:noteSize-4], castagnoli) != binary.LittleEndian.Uint32(b[noteSize-4:]) {
			continue
		}
		if n := binary.LittleEndian.Uint64(b); n > count {
			count, note = n, b[9:9+min(b[8], MaxNote)]
		}
	}
	return note, count, nil
}

func (d *dir) SetNote(note []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return pathError("write", LockName, d.writeNote(note))
}

func (d *dir) writeNote(note []byte) error {
	_, count, err := d.readNote()
	if err != nil {
		return err
	}
	if len(note) > MaxNote {
		return errLongNote
	}
	count++
	b := make([]byte, noteSize)
	binary.LittleEndian.PutUint64(b, count)
	b[8] = byte(len(note))
	copy(b[9:], note)
	binary.LittleEndian.PutUint32(b[noteSize-4:], crc32.Checksum(b[:noteSize-4], castagnoli))
	if _, err := d.lock.WriteAt(b, noteOffset+int64(count%2)*noteStride); err != nil {
		return err
	}
	return d.lock.Sync()
}
