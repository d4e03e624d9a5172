//go:build !linux

package s3sink_test

import "os"

func dataSync(f *os.File) error { return f.Sync() }
