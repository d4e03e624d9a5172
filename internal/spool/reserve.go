package spool

import (
	"errors"
	iofs "io/fs"
	"math"
	"math/rand/v2"

	"github.com/s3sink/s3sink/internal/vfs"
)

// reserveName is the file that holds the reserve.
const reserveName = "reserve"

// reserve is a file of noise that takes up room on the volume. When the volume is
// full, the file is removed, and its room goes to the records without which a
// spool cannot drain: seals, "delivered" records, and what recovery writes again.
//
//  1. S3 is down, and the spool or another program fills the volume.
//  2. S3 returns. A segment is uploaded, but its "delivered" record finds no room.
//  3. Without that record its journal file stays, and so the volume stays full.
//
// The file holds noise, not zeros: some file systems store zeros in no room at
// all. Its bytes are never overwritten in place, because copy-on-write file
// systems need other room for that; its removal is what gives room, on any file
// system.
//
// The name needs no care in a crash. A file that is there takes up its size. One
// that is torn, or that came back, is either large enough or replaced.
//
// A reserve belongs to whoever has the journal's turn.
type reserve struct {
	dir  vfs.Dir
	want int64 // bytes; 0: no reserve is kept
	held int64 // size of the file, as far as it certainly has room

	exists bool // there may be a file, perhaps an empty one
}

// adopt notes the file that a previous run has left.
func (r *reserve) adopt() error {
	entries, err := r.dir.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name == reserveName && e.Regular() {
			r.held, r.exists = e.Size, true
		}
	}
	return nil
}

// free returns how many bytes the volume still takes. It is unlimited where the
// system does not tell, and where no reserve is kept.
func (r *reserve) free() int64 {
	if r.want == 0 {
		return math.MaxInt64
	}
	free, err := r.dir.Free()
	if err != nil {
		return math.MaxInt64
	}
	return free
}

// room returns how many bytes may be written before the reserve is touched, or
// before the room for a reserve that was given up is.
func (r *reserve) room() int64 { return r.free() - r.missing() }

// missing returns how many bytes the reserve lacks.
func (r *reserve) missing() int64 { return max(0, r.want-r.held) }

// giveUp removes the file. It reports whether that gave room.
func (r *reserve) giveUp() bool {
	if r.held == 0 || r.remove() != nil {
		return false
	}
	return r.dir.Sync() == nil // many file systems free the room of a file only then
}

func (r *reserve) remove() error {
	err := r.dir.Remove(reserveName)
	if err == nil || errors.Is(err, iofs.ErrNotExist) {
		r.held, r.exists = 0, false
		return nil
	}
	return err
}

// renew makes the file if there is none, or one of less than half the wanted
// size, and if the volume has twice its room. Without one the journal works too.
func (r *reserve) renew() {
	if r.want == 0 || r.held >= r.want/2 || r.free() < 2*r.want {
		return
	}
	if r.remove() == nil && r.write() != nil {
		r.remove()
	}
}

func (r *reserve) write() error {
	r.exists = true // perhaps also after an error
	f, err := r.dir.Create(reserveName)
	if err != nil {
		return err
	}
	noise := rand.NewChaCha8([32]byte{})
	piece := make([]byte, min(r.want, 1<<20))
	for left := r.want; left > 0 && err == nil; left -= int64(len(piece)) {
		piece = piece[:min(left, int64(len(piece)))]
		noise.Read(piece)
		_, err = f.Append(piece)
	}
	if err == nil {
		err = f.Sync() // only then it certainly has its room
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		r.held = r.want
	}
	return err
}
