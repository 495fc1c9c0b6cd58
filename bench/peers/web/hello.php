<?php
header('Content-Type: text/plain');
header('Content-Length: 3');
echo "hi\n";
