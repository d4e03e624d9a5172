
# These policies are for more than one account. Run the script in each: it does the parts of that account.
account=$(aws sts get-caller-identity --query Account --output text)

policies() {

# permissions of arn:aws-us-gov:iam::210987654321:role/3rd-party, to assume the role arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party
if [ "$account" = 210987654321 ]; then
inline_policy role 3rd-party s3sink-assume-role '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
        "sts:AssumeRole"
      ],
      "Resource": [
        "arn:aws-us-gov:iam::123456789012:role/it'\''s/${$}(id)/${$}{x}/3rd-party"
      ]
    }
  ]
}'
fi

# trust policy of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, so that it can be assumed, and only so
if [ "$account" = 123456789012 ]; then
trust_policy 'arn:aws-us-gov:iam::123456789012:role/it'\''s/$(id)/${x}/3rd-party' 3rd-party '/it'\''s/$(id)/${x}/' '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": "arn:aws-us-gov:iam::210987654321:role/3rd-party"
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

# permissions of arn:aws-us-gov:iam::123456789012:role/it's/$(id)/${x}/3rd-party, to write below the prefix
if [ "$account" = 123456789012 ]; then
inline_policy role 3rd-party s3sink-write '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws-us-gov:s3:::acme-events/segment-logs/*"
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
