//go:build !unix

package vfs

import (
	"errors"
	"io/fs"
	"os"
)

// openFlags open a file to read it, and to sync it: Windows flushes no file
// that was opened for reading alone.
const openFlags = os.O_RDWR

// ErrFull is how a volume without room answers a write.
var ErrFull = errors.New("no space left on the volume")

// IsFull reports whether err may say that there is no room. Systems differ in
// that, and to take another error for it does no harm.
func IsFull(err error) bool { return err != nil }

// syncDir does nothing: Windows has no such call, and NTFS logs the entry of a
// file before the file's own flush returns.
func syncDir(*os.File) error { return nil }

// Access lists decide who may use a file, and package os does not read them. So
// every file counts as ours alone.

func isOurs(fs.FileInfo) bool                 { return true }
func sameOwner(fs.FileInfo, fs.FileInfo) bool { return true }
func othersMay(fs.FileInfo, fs.FileMode) bool { return false }

func ownership(info fs.FileInfo) string { return "its mode is " + info.Mode().String() }

// running cannot tell.
func running(pid int) bool { return pid > 0 }
