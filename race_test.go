//go:build race

package s3sink_test

const raceEnabled = true
