
# These policies are for more than one account. Run the script in each: it does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

policies() {

# permissions of arn:aws-cn:iam::210987654321:user/service, to assume the role arn:aws-cn:iam::210987654321:role/Exporter
if [ "$account" = 210987654321 ]; then
inline_policy user service s3sink-assume-role '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "sts:AssumeRole"
      ],
      "Resource": [
        "arn:aws-cn:iam::210987654321:role/Exporter"
      ]
    }
  ]
}'
fi

# trust policy of arn:aws-cn:iam::210987654321:role/Exporter, so that it can be assumed, and only so
if [ "$account" = 210987654321 ]; then
trust_policy 'arn:aws-cn:iam::210987654321:role/Exporter' Exporter / '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws-cn:iam::210987654321:user/service"
      },
      "Action": [
        "sts:AssumeRole"
      ]
    }
  ]
}'
fi

# permissions of arn:aws-cn:iam::210987654321:role/Exporter, to assume the role arn:aws-cn:iam::123456789012:role/vendors/S3Sink
if [ "$account" = 210987654321 ]; then
inline_policy role Exporter s3sink-assume-role '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "sts:AssumeRole"
      ],
      "Resource": [
        "arn:aws-cn:iam::123456789012:role/vendors/S3Sink"
      ]
    }
  ]
}'
fi

# trust policy of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, so that it can be assumed, and only so
if [ "$account" = 123456789012 ]; then
trust_policy 'arn:aws-cn:iam::123456789012:role/vendors/S3Sink' S3Sink /vendors/ '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws-cn:iam::210987654321:role/Exporter"
      },
      "Action": [
        "sts:AssumeRole"
      ],
      "Condition": {
        "StringEquals": {
          "sts:ExternalId": [
            "workspace-7"
          ]
        }
      }
    }
  ]
}'
fi

# permissions of arn:aws-cn:iam::123456789012:role/vendors/S3Sink, to write below the prefix
if [ "$account" = 123456789012 ]; then
inline_policy role S3Sink s3sink-write '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject",
        "s3:PutObjectAcl",
        "s3:PutObjectTagging"
      ],
      "Resource": [
        "arn:aws-cn:s3:::acme-events/it'\''s a${$}b/events/*"
      ]
    }
  ]
}'
fi

}

lacking=
pass=read
policies
if [ -n "$lacking" ]; then
	stop 3 'Nothing was changed. Read the policies above. To write them, run this again with APPLY_MERGED=1 in the environment.'
fi
pass=write
policies
