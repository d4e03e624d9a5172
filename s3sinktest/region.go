package s3sinktest

import "net/http"

const bucketRegionHeader = "X-Amz-Bucket-Region"

// RegionAnswer is how a server refuses requests that are signed for another
// region than the bucket's.
type RegionAnswer int

const (
	// RegionMalformed is 400 AuthorizationHeaderMalformed, which names the
	// region in the body and in x-amz-bucket-region. S3 sends it when the
	// endpoint is right and the signature's region is not.
	RegionMalformed RegionAnswer = iota

	// RegionRedirect is 301 PermanentRedirect, which names the region in
	// x-amz-bucket-region and has no Location. S3 sends it from the endpoint of
	// another region.
	RegionRedirect

	// RegionIllegal is 400 IllegalLocationConstraintException, which some
	// regions send in place of the redirect. It names the region in its message
	// only.
	RegionIllegal
)

// AnswerWrongRegion chooses how requests signed for the wrong region are
// refused from now on. HEAD, which has no body to say more in, gets a 301 with
// x-amz-bucket-region, or with RegionMalformed a 400 with it.
func (s *Server) AnswerWrongRegion(with RegionAnswer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrongRegion = with
}

func (s *Server) wrongRegionError(c *call, signed, region string) *apiError {
	s.mu.Lock()
	with := s.wrongRegion
	s.mu.Unlock()
	if with == RegionIllegal && c.r.Method == http.MethodHead {
		with = RegionRedirect
	}
	e := &apiError{status: 400, header: http.Header{bucketRegionHeader: {region}}}
	switch with {
	case RegionRedirect:
		e.status, e.code = http.StatusMovedPermanently, "PermanentRedirect"
		e.message = "The bucket you are attempting to access must be addressed using the specified endpoint. " +
			"Please send all future requests to this endpoint."
		e.details = []xmlElement{detail("Endpoint", c.bucket+".s3."+region+".amazonaws.com"), detail("Bucket", c.bucket)}
	case RegionIllegal:
		e.code, e.header = "IllegalLocationConstraintException", nil
		e.message = "The " + region + " location constraint is incompatible for the region specific endpoint this request was sent to."
	default:
		e.code = "AuthorizationHeaderMalformed"
		e.message = "The authorization header is malformed; the region '" + signed + "' is wrong; expecting '" + region + "'"
		e.details = []xmlElement{detail("Region", region)}
	}
	return e
}

// nameRegion adds the bucket's region to every answer to HeadBucket, also to a
// refusal: that is how clients find it.
func (s *Server) nameRegion(c *call, a answer) answer {
	if place, ok := s.place(c.bucket); ok && c.operation == "HeadBucket" {
		a.header.Set(bucketRegionHeader, place.region)
	}
	return a
}
