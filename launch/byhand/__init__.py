"""What people add to training data: reviewed mismatches and corrected attempts. The pages for it are in launch/console."""
