package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"regexp"
	"slices"

	"github.com/s3sink/s3sink/internal/deflate"
	"github.com/s3sink/s3sink/internal/vfs"
)

const (
	// copiesName is the subdirectory with copies of what is damaged.
	copiesName = "corrupt"

	maxCopies     = 1000     // files in it
	maxCopiesSize = 64 << 20 // bytes, unless the settings say
)

// errNoRoom says that there are as many copies as there may be.
var errNoRoom = errors.New("there is no room for more copies of what is damaged")

// copies is that subdirectory. It is there only if there was damage, and what
// is in it stays.
type copies struct {
	dir  vfs.Dir
	have map[string]int64
	room int64
}

// keep opens the subdirectory for f, and brings it to the disk.
func (j *Journal) keep(f func(*copies) error) error {
	j.keeping.Lock()
	defer j.keeping.Unlock()
	dir, err := j.set.Dir.Sub(copiesName)
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.List()
	if err != nil {
		return err
	}
	c := &copies{dir: dir, have: map[string]int64{}, room: cmp.Or(j.set.Kept, maxCopiesSize)}
	for _, e := range entries {
		c.have[e.Name] = e.Size
		c.room -= e.Size
	}
	if err := f(c); err != nil {
		return err
	}
	return errors.Join(dir.Sync(), j.set.Dir.Sync())
}

// keepRange copies a window's file from an offset on.
func (c *copies) keepRange(w *window, from int64) (int64, error) {
	if used, err := w.used(from); err != nil || used == from {
		return 0, err // zeroes
	}
	return c.write(fmt.Sprintf("%s-%d.bin", w.f.name, from), func(to io.Writer) error {
		_, err := io.Copy(to, io.NewSectionReader(w.in, from, w.size-from))
		return err
	})
}

// keepPart copies those frames of a segment that can be read, as an object
// without its end.
func (c *copies) keepPart(id segmentID, files *files, frames []extent) (int64, error) {
	var failed error
	frames = slices.DeleteFunc(slices.Clone(frames), func(e extent) bool {
		_, err := io.CopyN(io.Discard, io.NewSectionReader(payloadReader{files, e}, 0, e.size), e.size)
		failed = cmp.Or(failed, err)
		return err != nil
	})
	if len(frames) == 0 {
		return 0, failed
	}
	return c.write(partName(id), func(to io.Writer) error {
		if _, err := io.WriteString(to, deflate.Header); err != nil {
			return err
		}
		for _, e := range frames {
			if _, err := io.Copy(to, io.NewSectionReader(payloadReader{files, e}, 0, e.size)); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetAside copies what can be read of a sealed segment, and returns where to,
// relative to the spool. The caller removes the segment then.
func (j *Journal) SetAside(seg *Segment) (name string, err error) {
	err = j.keep(func(c *copies) error {
		_, err := c.keepPart(seg.id(), j.files, seg.disk)
		return err
	})
	return copiesName + "/" + partName(seg.id()), err
}

var plainRun = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

func partName(id segmentID) string {
	run := id.run
	if !plainRun.MatchString(run) {
		run = fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(run)))
	}
	return fmt.Sprintf("%s-%d.gz.part", run, id.sequence)
}

// write makes a copy, or leaves it if there is one already, and returns how long
// it is. With errNoRoom it is not all.
func (c *copies) write(name string, from func(io.Writer) error) (int64, error) {
	room := c.room + c.have[name]
	_, there := c.have[name]
	if !there && len(c.have) >= maxCopies || room <= 0 {
		return 0, errNoRoom
	}
	if there {
		if kept, all := c.isKept(name, from, room); all {
			return c.have[name], nil
		} else if kept {
			return c.have[name], errNoRoom
		}
		if err := c.dir.Remove(name); err != nil { // a crash has cut it
			return 0, err
		}
	}
	f, err := c.dir.Create(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	to := &bounded{f: f, room: room}
	err = from(to)
	if failed := f.Sync(); failed != nil {
		err = failed
	}
	c.have[name], c.room = to.size, room-to.size
	return to.size, err
}

// bounded appends to a file, up to a length.
type bounded struct {
	f          vfs.File
	size, room int64
}

func (b *bounded) Write(p []byte) (n int, err error) {
	if b.size+int64(len(p)) > b.room {
		err = errNoRoom
		p = p[:b.room-b.size]
	}
	n, failed := b.f.Append(p)
	b.size += int64(n)
	if failed != nil {
		err = failed
	}
	return n, err
}

// isKept reports whether a file is what would be written now, or as much of it
// as there is room for.
func (c *copies) isKept(name string, from func(io.Writer) error, room int64) (kept, all bool) {
	f, err := c.dir.Open(name)
	if err != nil {
		return false, false
	}
	defer f.Close()
	to := &same{f: f, size: c.have[name]}
	if from(to) != nil {
		return false, false
	}
	all = to.at == to.size
	return all || to.at > to.size && to.size >= room, all
}

// same compares what is written with a file, as far as that goes.
type same struct {
	f        vfs.File
	size, at int64
}

var errDiffers = errors.New("the copy is another one")

func (s *same) Write(p []byte) (int, error) {
	old := make([]byte, min(int64(len(p)), max(0, s.size-s.at)))
	if n, _ := s.f.ReadAt(old, s.at); !bytes.Equal(old[:n], p[:len(old)]) {
		return 0, errDiffers
	}
	s.at += int64(len(p))
	return len(p), nil
}
