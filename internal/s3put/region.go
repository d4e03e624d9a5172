package s3put

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const regionHeader = "X-Amz-Bucket-Region"

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

var errNoRegion = errors.New("the answer to HeadBucket names no region")

// defaultRegion signs requests to an endpoint that is not AWS, where a region
// is a formality and this one is understood everywhere.
const defaultRegion = "us-east-1"

// region returns the bucket's region: the given one; or S3's own answer to an
// unsigned HEAD, which names the region even when it refuses the request; or
// the answer to a signed one, for partitions that ignore anonymous callers.
// AWS_REGION is not asked: it is where the program runs.
func (c *Client) region(ctx context.Context) (string, error) {
	if c.set.Region != "" {
		return c.set.Region, nil
	}
	hint := c.set.HintRegion
	if hint == "" {
		hint = defaultRegion
	}
	anonymous := c.build(hint, aws.AnonymousCredentials{})
	if anonymous.Options().BaseEndpoint != nil {
		return hint, nil
	}
	region, unsigned := headBucket(ctx, anonymous, c.set.Bucket)
	if region != "" {
		return region, nil
	}
	region, signed := headBucket(ctx, c.build(hint, c.credentials(hint)), c.set.Bucket)
	if region != "" {
		return region, nil
	}
	err := fmt.Errorf("the region of bucket %q is not known and S3 did not name it; set Config.Region: %w",
		c.set.Bucket, errors.Join(unsigned, signed))
	return "", asked(err, signed)
}

// asked classifies a failed discovery by its last answer. An answer without a
// region will be the same tomorrow, so it needs a person.
func asked(err, last error) *Error {
	e := newError(last)
	if errors.Is(last, errNoRegion) || e.Class != Transient {
		e.Class = Parked
	}
	e.Err = err
	return e
}

// headBucket returns the region that the answer names, whatever its status.
func headBucket(ctx context.Context, client *s3.Client, bucket string) (string, error) {
	out, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	if err == nil {
		if r := aws.ToString(out.BucketRegion); regionName.MatchString(r) {
			return r, nil
		}
		return "", errNoRegion
	}
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.Response != nil {
		return regionIn(re.Response), err
	}
	return "", err
}

func regionIn(r *smithyhttp.Response) string {
	if r.Response == nil {
		return ""
	}
	if region := r.Header.Get(regionHeader); regionName.MatchString(region) {
		return region
	}
	return ""
}

// follow takes an answer that says that the bucket is in another region. A
// region that was discovered is learnt anew: somebody deleted the bucket and
// made it again elsewhere. One that was given is a person's to correct.
func (c *Client) follow(conn *connection, e *Error) {
	var named string
	var re *awshttp.ResponseError
	if errors.As(e.Err, &re) && re.Response != nil {
		named = regionIn(re.Response)
	}
	if named != "" {
		e.Err = fmt.Errorf("the bucket is in %s, not in %s: %w", named, conn.region, e.Err)
	}
	if c.set.Region != "" || conn.s3.Options().BaseEndpoint != nil {
		e.Class = Parked
		return
	}
	var next *connection // nil: ask
	if named != "" {
		next = c.connectionTo(named)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn { // else another attempt was first
		c.conn = next
	}
}
