package migrate

import (
	"cmp"

	"github.com/s3sink/s3sink"
)

// Ids of Segment's catalogue, from the page "AWS S3 with IAM Role Support
// Destination".
const (
	segmentAWSS3    = "60be92c8dabdd561bf6c9130"
	segmentAmazonS3 = "54f418c3db31d978f14aa925" // the older one
)

// FromSegment returns the Config of a sink that writes to the same bucket and the
// same keys ([s3sink.SegmentKeys]) as Segment's S3 destination with these settings.
// settings is JSON: the settings of the destination, or the whole destination as
// Segment's Public API takes and returns it.
//
//	s3Bucket, bucket    Bucket, with the path after the name if there is one
//	region, awsRegion   Region
//	iamRoleArn          Credentials: AssumeRole(iamRoleArn, externalID, opts...)
//	enabled             Disabled, if it is false
//	sourceId            SourceID; without it, set SourceID yourself
//	metadataId          checked to be AWS S3 or the older Amazon S3
//
// Segment's documentation has both names of the first two. externalID is the id of the
// Segment workspace: the trust policy of the role demands it (sts:ExternalId), and
// settings do not hold it. FromSegment refuses a role without it. The role must also
// trust the identity that assumes it now: the ambient one, or the identity of
// [s3sink.Via]. Without a role, as in settings of the older destination, Credentials are
// [s3sink.Ambient].
//
// Keys may have any case. ignored lists the keys that had no effect on the Config, in
// their order; print it. It leaves out empty values, and keys that only describe the
// destination (id, name, metadata). The error joins a [*SettingsError] for every key that
// is wrong, also for values that New would refuse; the Config is then zero. FromSegment
// keeps no reference to settings.
func FromSegment(settings []byte, externalID string, opts ...s3sink.RoleOption) (cfg s3sink.Config, ignored []string, err error) {
	r, err := readSettings(settings)
	if err != nil {
		return s3sink.Config{}, nil, err
	}
	dest := r.root
	for _, answer := range []string{"data", "destination"} { // of the Public API
		if inner := dest.object(answer); inner != nil {
			dest = inner
		}
	}
	dest.skip("id", "destinationId", "name")
	cfg = s3sink.Config{
		KeyFormat: s3sink.SegmentKeys,
		SourceID:  dest.text("sourceId"),
		Disabled:  dest.off("enabled"),
	}
	kind := dest.text("metadataId")
	if metadata := dest.object("metadata"); metadata != nil {
		kind = cmp.Or(kind, metadata.text("id"))
		metadata.skipAll()
	}
	if kind != "" && kind != segmentAWSS3 && kind != segmentAmazonS3 {
		dest.wrong("a destination of AWS S3 ("+segmentAWSS3+") or Amazon S3 ("+segmentAmazonS3+")", "metadataId", "metadata")
	}
	set := dest
	if inner := dest.object("settings"); inner != nil {
		set = inner
	}
	cfg.Bucket = set.text("s3Bucket", "bucket")
	cfg.Region = set.text("region", "awsRegion")
	role := set.text("iamRoleArn")
	switch {
	case role != "" && externalID == "":
		set.wrong("its external id in the call: the id of the Segment workspace, which is sts:ExternalId in the role's trust policy", "iamRoleArn")
	case role != "":
		cfg.Credentials = s3sink.AssumeRole(role, externalID, opts...)
	case kind == segmentAWSS3:
		set.wrong("the ARN of the role: AWS S3 does not work without", "iamRoleArn")
	}
	r.check(&cfg, map[string]string{
		"Bucket":              set.name("s3Bucket", "bucket"),
		"Prefix":              set.name("s3Bucket", "bucket"),
		"KeyFormat":           set.name("s3Bucket", "bucket"),
		"Region":              set.name("region", "awsRegion"),
		"SourceID":            dest.name("sourceId"),
		"Credentials.RoleARN": set.name("iamRoleArn"),
	})
	return r.result(cfg)
}
