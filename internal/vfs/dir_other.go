//go:build !unix

package vfs

import (
	"io/fs"
	"os"
)

// openFlags open a file to read it, and to sync it: Windows flushes no file
// that was opened for reading alone.
const openFlags = os.O_RDWR

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
