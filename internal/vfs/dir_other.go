//go:build !unix

package vfs

import (
	"errors"
	"io/fs"
	"os"
)

// openFlags are the flags to open a file for reading and Sync. They include write
// access, because Windows does not flush a file that was opened read-only.
const openFlags = os.O_RDWR

// ErrFull is the error of a write to a full volume.
var ErrFull = errors.New("no space left on the volume")

// IsFull reports whether err may mean that the volume is full. The error differs
// between systems, so every error counts; a false positive is harmless.
func IsFull(err error) bool { return err != nil }

// syncDir does nothing: Windows cannot sync a directory, and NTFS logs a file's
// directory entry before the file's own flush returns.
func syncDir(*os.File) error { return nil }

// Access control lists decide which users may use a file, and package os does not
// read them. So every file is treated as private to the current user.

func isOurs(fs.FileInfo) bool                 { return true }
func sameOwner(fs.FileInfo, fs.FileInfo) bool { return true }
func othersMay(fs.FileInfo, fs.FileMode) bool { return false }

func ownership(info fs.FileInfo) string { return "its mode is " + info.Mode().String() }

// isRunning has no portable way to check, so it returns true for every valid pid.
func isRunning(pid int) bool { return pid > 0 }
