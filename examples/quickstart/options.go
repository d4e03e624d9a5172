package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"time"
)

type options struct {
	stdin bool
	keep  string

	bucket, prefix, source string
	region, role           string
	externalID             string
	endpoint, stsEndpoint  string

	level          int
	maxObjectBytes int64
	maxObjectAge   time.Duration
}

const usage = `Quickstart sends events through s3sink to a bucket, downloads them and checks that
events in = events out.

  go run ./examples/quickstart                         samples, to an S3 inside this program
  go run ./examples/quickstart -stdin < events.ndjson  your events, to an S3 inside this program
  go run ./examples/quickstart -bucket NAME -region REGION -role ARN -external-id ID
                                                       samples, to AWS

Flags:
`

// parseOptions parses and checks the flags. It returns flag.ErrHelp after it
// has printed the help.
func parseOptions(args []string, help io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints the error
	f.Usage = func() {}
	f.BoolVar(&o.stdin, "stdin", false, "read events from standard input, one JSON object on each line, instead of the samples")
	f.StringVar(&o.keep, "keep", "", "write the downloaded objects as files under `DIR`")
	f.StringVar(&o.source, "source", "quickstart", "source `ID` of the events, a folder of the keys")
	f.StringVar(&o.bucket, "bucket", "", "write to the bucket `NAME`, optionally NAME/PATH, with the credentials of the AWS environment")
	f.StringVar(&o.prefix, "prefix", "", "put this before every `KEY`")
	f.StringVar(&o.region, "region", "", "`REGION` of the bucket (with -bucket); by default the sink asks S3, and reading back needs AWS_REGION")
	f.StringVar(&o.role, "role", "", "`ARN` of the IAM role to write as (with -bucket)")
	f.StringVar(&o.externalID, "external-id", "", "external `ID` that the role demands (with -role)")
	f.StringVar(&o.endpoint, "endpoint", "", "`URL` of an S3 that is not AWS's, addressed in path style (with -bucket)")
	f.StringVar(&o.stsEndpoint, "sts-endpoint", "", "`URL` of an STS that is not AWS's (with -role)")
	f.IntVar(&o.level, "level", 0, "gzip level `N`, 1 (fast) to 9 (small); 0 is the library's default")
	f.Int64Var(&o.maxObjectBytes, "max-object-bytes", 0, "close an object before it has more than `N` compressed bytes; 0 is the library's default")
	f.DurationVar(&o.maxObjectAge, "max-object-age", 0, "close an object this long after its first event; 0 is the library's default")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(help, usage)
		f.SetOutput(help)
		f.PrintDefaults()
	}
	if err == nil {
		err = o.check(f.Args())
	}
	return o, err
}

// check refuses flags that would have no effect. A -role without -bucket, for
// example, would write to the S3 inside the program and report success.
func (o options) check(rest []string) error {
	switch {
	case len(rest) > 0 && rest[0] == "-":
		return errors.New("unexpected argument -; to read standard input use -stdin")
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q; see -h", rest[0])
	case o.bucket == "" && (o.region != "" || o.role != "" || o.endpoint != ""):
		return errors.New("-region, -role and -endpoint need -bucket; see -h")
	case o.source == githubSource && !o.stdin:
		return fmt.Errorf("-source %s is the source of the GitHub samples; choose another", githubSource)
	case o.role == "" && (o.externalID != "" || o.stsEndpoint != ""):
		return errors.New("-external-id and -sts-endpoint need -role; see -h")
	}
	return nil
}
