// Package vfs is the few file operations that the journal needs, in one
// directory that belongs to this process.
//
// A file is created, appended to, synced, read and removed. It is never renamed,
// and only its reserved zeros are overwritten. After a power cut the journal may
// rely only on these parts of the disk:
//
//   - The bytes in a file at the start of a successful [File.Sync]. For reserved
//     zeros this ends when bytes are appended over them.
//   - The entries of a directory, and their absence, at the start of a successful
//     [Dir.Sync].
//
// Everything else may be on disk or not, in any order. After a failed Sync, even a
// later successful Sync proves nothing about the earlier bytes. Package crashfs is
// a directory in memory that gives exactly these guarantees.
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

// LockName is the file that [Dir.Lock] locks. It is never removed: after a removal
// two processes could lock two files of the same name. While the file is locked
// it describes the holder of the lock, see [Holder].
const LockName = "LOCK"

// Dir is one directory that belongs to this process. Its methods may be called
// from several goroutines. Names are names of entries; a path returns
// [fs.ErrInvalid]. The name of the LOCK file returns [fs.ErrPermission].
//
// Errors are [*fs.PathError]s with the operation, the entry's name without the
// directory, and the system's errno.
type Dir interface {
	// Create makes a new file with mode 0600, for appending and reading. It
	// returns [fs.ErrExist] if any entry has the name. The entry is on disk
	// after the next Sync of the directory.
	Create(name string) (File, error)

	// Open opens a regular file for reading and Sync; Append fails. For any other
	// entry, including a symlink to a regular file, it returns
	// [ErrNotRegular]. It never waits for the other end of a FIFO.
	Open(name string) (File, error)

	// Remove unlinks an entry. For a directory it returns [ErrNotRegular].
	// Open handles of a removed file stay readable.
	Remove(name string) error

	// List returns all entries, including LOCK and foreign entries, in the order
	// of their names' bytes. An entry that another process adds or removes
	// during the call may be missing or included.
	List() ([]Entry, error)

	// Sync fsyncs the directory's own entries, not the bytes of its files. It
	// returns nil if the file system has no such operation.
	Sync() error

	// Sub opens a subdirectory, and makes a missing one with mode 0700. It must
	// be a directory of the effective user and not a symlink; Sub sets its mode to
	// 0700. A new subdirectory is on disk after the next Sync of this directory.
	Sub(name string) (Dir, error)

	// Lock takes the directory's lock. Only one Dir of one process can hold it.
	// Lock tries at least once and waits until ctx ends. Then it returns
	// [ErrLocked] joined with ctx's cause; on a real file system the error is a
	// [*LockedError] with the holder. The lock is held until Close or the end of
	// the process, even by SIGKILL. Child processes do not hold it. Locking
	// twice is an error.
	Lock(ctx context.Context) error

	// Note returns the last note that SetNote stored, or nil. Only the holder of
	// the lock may call it.
	Note() ([]byte, error)

	// SetNote stores at most [MaxNote] bytes in the LOCK file, which outlives all
	// other files. When it returns nil the note is on disk. After an error, or a
	// crash during the call, either this note or the previous one is stored. Only
	// the holder of the lock may call it.
	SetNote(note []byte) error

	// FileSystem describes the directory's file system.
	FileSystem() FileSystem

	// Free returns the number of bytes that this process can still write to the
	// volume if no other program writes. It is an estimate: metadata and
	// copy-on-write may need some of them. [errors.ErrUnsupported] means that the
	// system does not provide the number.
	Free() (int64, error)

	// Close releases the lock and the directory's handles. It does not close
	// open files and subdirectories.
	Close() error
}

// File is one file of a [Dir].
//
// ReadAt may run concurrently with itself and with all other methods except Close.
// At the end of the file it returns a bare [io.EOF]. One call of Append and one of
// Sync may run at the same time. Reserve must not overlap with Append, Sync or
// another Reserve.
type File interface {
	io.ReaderAt

	// Append writes p after the last appended byte, over reserved zeros and past
	// them. It continues after a partial write and after EINTR, so n < len(p)
	// implies an error. Then the first n bytes of p are in the file, and
	// processes on this system can read them.
	Append(p []byte) (n int, err error)

	// Reserve writes n zeros at the end of the file, n ≥ 1, which Append later
	// overwrites. If the zeros are on disk, a Sync of the bytes over them is
	// faster: the file's length and blocks do not change.
	//
	// After a power cut, synced zeros without appended bytes are still zeros. For
	// appended bytes that are not synced, each sector holds the bytes, zeros or
	// noise. The file is not shorter than its synced zeros.
	//
	// After an error any part of the zeros may be in the file. Append and Sync
	// then behave as if Reserve had not been called.
	Reserve(n int64) error

	// Sync fsyncs the file's bytes and length. It must not be called again after
	// an error: the kernel may have dropped the bytes of the failed write, and
	// the second call would return nil.
	Sync() error

	Size() (int64, error)
	Close() error
}

// Entry is one name of a directory.
type Entry struct {
	Name string
	Type fs.FileMode // type bits; 0 for a regular file
	Size int64       // bytes of a regular file, otherwise 0
}

// Regular reports whether the entry is a regular file, which [Dir.Open] accepts.
func (e Entry) Regular() bool { return e.Type == 0 }

// FileSystem describes the file system of a directory, as the system reports it.
type FileSystem struct {
	// Name is a name such as "ext4", or a hexadecimal number for an unknown file
	// system. It is empty if the system does not report it.
	Name string

	// Network means that other machines may use the files, and that locks and
	// syncs are less reliable than on a local disk.
	Network bool

	// Volatile means that synced bytes may be lost in a power cut: the file
	// system is in memory (tmpfs), or passes writes to another one whose
	// guarantees are unknown (overlay, FUSE, 9p).
	Volatile bool
}

// CheckName returns the error for a name that a [Dir] does not accept.
func CheckName(name string) error {
	switch {
	case name == "." || !filepath.IsLocal(name) || strings.ContainsAny(name, "/\\\x00"):
		return fs.ErrInvalid
	case name == LockName:
		return fs.ErrPermission
	}
	return nil
}
