// Package vfs is the few file operations that the journal needs, in one
// directory that belongs to this process.
//
// A file is created, appended to, synced, read and removed, and never renamed
// or overwritten, but for zeros that were reserved to be. What is on disk after
// a power cut, and no more than this, is what the journal may count on:
//
//   - bytes that were in the file when a [File.Sync] began that returned nil;
//     reserved zeros, until something is appended over them,
//   - the entry of a file that was there, or gone, when a [Dir.Sync] began that
//     returned nil.
//
// Everything else may be on disk or not, in any order. After a Sync that failed
// even a later one that returns nil says nothing about the bytes before it.
// Package crashfs is a directory in memory that takes these sentences at their
// word.
//
// Systems differ in this:
//
//	            File.Sync     Dir.Sync           Lock        owner, mode, network
//	Linux       fdatasync     fsync              flock       checked
//	macOS       F_FULLFSYNC   F_FULLFSYNC        flock       checked
//	BSD         fsync         fsync              flock       owner and mode
//	Windows     FlushFile…    nothing: NTFS      LockFileEx  not checked: access
//	                          logs its entries               lists decide
//	others      fsync         nothing            refused     not checked
package vfs

import (
	"context"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
)

// LockName is the file that [Dir.Lock] locks. It stays for ever: who unlinks a
// lock file lets two processes lock two files of one name. While it is locked it
// says who has the lock, see [Holder].
const LockName = "LOCK"

// Dir is one directory that belongs to this process. Its methods may be called
// from several goroutines. A name is that of an entry, never a path, or it is
// [fs.ErrInvalid]; the LOCK file, which only Lock touches, is [fs.ErrPermission].
//
// Errors are [*fs.PathError]s that hold the operation, the entry's name without
// the directory, and the system's errno.
type Dir interface {
	// Create makes a new file, mode 0600, to append to and read back. A name
	// that exists, whatever it is, is [fs.ErrExist]. The entry is on disk after
	// the next Sync of the directory.
	Create(name string) (File, error)

	// Open opens a regular file to read and sync it; appending to it fails.
	// Anything else, a symlink to a regular file too, is an [ErrNotRegular],
	// and Open never waits for whoever holds the other end of a FIFO.
	Open(name string) (File, error)

	// Remove unlinks whatever is no directory; that is an [ErrNotRegular].
	// Handles of a file stay readable.
	Remove(name string) error

	// List returns everything that is there, LOCK and foreign things included,
	// in the order of the names' bytes. What others add or remove meanwhile may
	// be in it or not.
	List() ([]Entry, error)

	// Sync brings the directory's own entries to the disk, not the bytes of its
	// files. It returns nil where a file system has no such operation.
	Sync() error

	// Sub opens a subdirectory, made with mode 0700 if it is missing. It must be
	// a directory of the effective user and no symlink; its mode is set to 0700 if
	// it is another one. A new one is on disk after the next Sync of this
	// directory.
	Sub(name string) (Dir, error)

	// Lock takes the directory's lock, which only one process, and in it only
	// one Dir, can hold. It waits until ctx ends, then returns [ErrLocked]
	// joined with ctx's cause, as a [*LockedError] that says who has the lock if
	// the file system is a real one; it tries at least once. The lock is held until
	// Close or the end of the process, however it ends; children that the
	// process starts do not hold it. Locking twice is an error.
	Lock(ctx context.Context) error

	// Note returns the last note that SetNote has stored, or nothing if there is
	// none. Only the holder of the lock may call it.
	Note() ([]byte, error)

	// SetNote stores at most [MaxNote] bytes in the LOCK file, which stays when
	// all other files are gone. The note is on disk when it returns nil. After an
	// error, and after a crash within the call, this note or the one before is there.
	// Only the holder of the lock may call it.
	SetNote(note []byte) error

	// FileSystem says where the directory lies.
	FileSystem() FileSystem

	// Free returns how many bytes more this process can write to the volume,
	// now and if no other program writes. It is an estimate: metadata and
	// copy-on-write may need some of them. An error that is
	// [errors.ErrUnsupported] means that the system does not tell.
	Free() (int64, error)

	// Close releases the lock and the directory's handles. Files and
	// subdirectories are closed on their own.
	Close() error
}

// File is one file of a [Dir].
//
// ReadAt may be called from several goroutines and next to Append, Reserve, Sync
// and Size; it returns a bare [io.EOF] at the end. Append and Sync of one file
// must not overlap with themselves, and Reserve with none of the three.
type File interface {
	io.ReaderAt

	// Append writes p behind the last byte appended, over zeros that are
	// reserved, and past them. It goes on after a part was written and after
	// EINTR, so n < len(p) only with an error, and then n bytes are in the file,
	// for a reader of this system to see.
	Append(p []byte) (n int, err error)

	// Reserve writes n zeros, at least one, behind what was appended and
	// reserved, and the file is longer by them. A Sync of what is appended over
	// zeros that are on disk has no new length and no new blocks to bring there,
	// which takes less time.
	//
	// After a power cut, synced zeros are zeros where nothing was appended over
	// them. Where something was that is not synced, each sector may hold that,
	// or zeros, or noise; the file is not shorter for it.
	//
	// After an error any part of the zeros may be in the file, and Append and
	// Sync do what they would have done without the call.
	Reserve(n int64) error

	// Sync brings the file's bytes and length to the disk. After an error it
	// must not be called again: the kernel has forgotten what it could not
	// write, and would say nil.
	Sync() error

	Size() (int64, error)
	Close() error
}

// Entry is one name of a directory.
type Entry struct {
	Name string
	Type fs.FileMode // its type bits: 0 is a regular file
	Size int64       // of a regular file
}

// Regular reports whether the entry is a regular file, which [Dir.Open] takes.
func (e Entry) Regular() bool { return e.Type == 0 }

// FileSystem is what the system says about the place of a directory.
type FileSystem struct {
	// Name is such as "ext4", or a number where we know none. It is empty if
	// the system does not say.
	Name string

	// Network means that other machines may hold the files, and that neither
	// locks nor syncs can be trusted as those of a local disk.
	Network bool

	// Volatile means that synced bytes may be gone after a power cut: they are
	// in memory only (tmpfs), or below is something whose own promise cannot be
	// seen from here (overlay, FUSE, 9p).
	Volatile bool
}

// CheckName returns the error of a name that a [Dir] does not take.
func CheckName(name string) error {
	switch {
	case name == "." || !filepath.IsLocal(name) || strings.ContainsAny(name, "/\\\x00"):
		return fs.ErrInvalid
	case name == LockName:
		return fs.ErrPermission
	}
	return nil
}
