package spool

import (
	"errors"
	iofs "io/fs"
	"math"
	"math/rand/v2"

	"github.com/s3sink/s3sink/internal/vfs"
)

// reserveName is the name of the reserve file.
const reserveName = "s3sink.reserve"

// reserve is a file that takes up room on the volume. When the volume is full,
// the file is removed. Its room goes to the records that the spool needs to
// drain: seals, "delivered" records and the rewrites of recovery. Without a
// reserve a full volume stays full:
//
//  1. S3 is down, and the spool or another program fills the volume.
//  2. S3 returns. A segment is uploaded, but its "delivered" record finds no
//     room.
//  3. Without that record its journal file stays, and so the volume stays
//     full.
//
// The file holds noise, because some file systems store zeros without using
// room. Its bytes are never overwritten in place, because copy-on-write file
// systems need more room for that. Its removal frees room on every file system.
//
// The file needs no sync of the directory. After a crash it has either at least
// half its size or is replaced.
//
// The reserve is guarded by the journal's commitMu.
type reserve struct {
	dir  vfs.Dir
	want int64 // size of the file; 0: no reserve
	held int64 // bytes of the file that are known to have room

	exists bool // the file may exist, perhaps empty
}

// adopt notes the file of a previous run.
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

// freeBytes returns the free bytes of the volume. It is [math.MaxInt64] if the
// system does not tell, or if there is no reserve.
func (r *reserve) freeBytes() int64 {
	if r.want == 0 {
		return math.MaxInt64
	}
	free, err := r.dir.Free()
	if err != nil {
		return math.MaxInt64
	}
	return free
}

// room returns the bytes that may be written without using the reserve, or the
// room for a reserve that was given up.
func (r *reserve) room() int64 { return r.freeBytes() - r.missing() }

// missing returns the bytes that the reserve lacks.
func (r *reserve) missing() int64 { return max(0, r.want-r.held) }

// giveUp removes the file. It reports whether that freed room.
func (r *reserve) giveUp() bool {
	if r.held == 0 || r.remove() != nil {
		return false
	}
	return r.dir.Sync() == nil // many file systems free the room of a file only at the sync
}

func (r *reserve) remove() error {
	err := r.dir.Remove(reserveName)
	if err == nil || errors.Is(err, iofs.ErrNotExist) {
		r.held, r.exists = 0, false
		return nil
	}
	return err
}

// renew creates the file if it is missing or less than half its size, and if
// the volume has twice the wanted size free. After an error the journal works
// without it.
func (r *reserve) renew() {
	if r.want == 0 || r.held >= r.want/2 || r.freeBytes() < 2*r.want {
		return
	}
	if r.remove() == nil && r.write() != nil {
		_ = r.remove() // the next renew retries
	}
}

func (r *reserve) write() error {
	r.exists = true // even if Create fails
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
		err = f.Sync() // allocates the room
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		r.held = r.want
	}
	return err
}
