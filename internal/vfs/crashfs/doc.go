// Package crashfs is a directory in memory for tests. It gives the guarantees of
// package vfs and no others.
//
//	disk := crashfs.New(seed)
//	use(disk.Dir())                   // the first process
//	disk = disk.Crash(rng)            // power cut: one of the possible disks
//	disk = disk.Kill()                // or: SIGKILL, the kernel lives on
//	use(disk.Dir())                   // the next process
//
// Operations are numbered from 0, so that a test can make each of them fail, or
// be the last of the process:
//
//	for k := 0; ; k++ {
//		disk := crashfs.New(seed)
//		disk.FailAt(k, crashfs.Stop)
//		use(disk.Dir())
//		if !disk.Tripped() {
//			break // all operations were tried
//		}
//		check(disk.Crash(rng), disk.Kill())
//	}
//
// # What a power cut leaves
//
// Bytes in a file at the start of a successful Sync are unchanged. So are synced
// zeros without appended bytes. Each sector of the other bytes is independently
// kept, torn at any byte, or lost. Sectors have 512 or 4096 bytes. A lost sector
// holds zeros, noise, or bytes of a file that was removed earlier. The file ends
// anywhere between the last byte that was ever synced and the last written byte.
//
// A name that was created or removed since the directory's last Sync is
// independently in the state before or after. A Sync of the file does not matter.
// A name that changed more than once may be in any of these states.
//
// # After a failed Sync
//
// The bytes count as clean, as in Linux: they may be on disk or not, and no later
// Sync of this or the next process changes that. [FS.Evict] shows their loss to
// readers. Bytes that are later appended over such zeros are written by the next
// Sync. Names are written by the next Sync of the directory, because real file
// systems keep them in their log or shut down. [FS.ForgetNames] treats names like
// bytes.
//
// # Limits
//
// The package does not damage synced bytes; tests of damage use [FS.Put]. It does
// not rename or truncate files, and overwrites only reserved zeros. Lost sectors
// never hold older bytes of the same file.
package crashfs
